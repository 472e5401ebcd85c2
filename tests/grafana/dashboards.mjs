// What each dashboard has: numbers at a glance first, a description and a unit for each panel, variables for pipeline, service and policy; and the
// twins that ask VictoriaLogs differ from those that ask Loki by what they ask for log lines, and by nothing else.
//
//   node dashboards.mjs ROOT          prints what is missing
import { readdirSync, readFileSync } from "node:fs";

const VICTORIALOGS = "victoriametrics-logs-datasource";
const AT_A_GLANCE = ["Decisions", "Denied", "p99", "Behind", "Rejects", "Findings now"];

/// What is wrong with a dashboard.
function* wrong(dashboard) {
  const ofElasticsearch = dashboard.panels.every((panel) => panel.datasource.type === "elasticsearch");
  const names = dashboard.templating.list.map((variable) => variable.name);
  // An index is one pipeline's.
  for (const name of ofElasticsearch ? ["service", "policy"] : ["pipeline", "service", "policy"])
    if (!names.includes(name)) yield `no variable ${name}`;
  yield* unknown(dashboard);
  const top = dashboard.panels.filter((panel) => panel.gridPos.y === 0);
  if (top.length < 4 || top.some((panel) => panel.type !== "stat")) yield "does not begin with numbers at a glance";
  if (!ofElasticsearch && AT_A_GLANCE.some((title) => !top.some((panel) => panel.title === title))) yield `at a glance is not ${AT_A_GLANCE}`;
  const ids = new Set(dashboard.panels.map((panel) => panel.id));
  if (ids.size !== dashboard.panels.length) yield "two panels have the same id";
  const places = new Set();
  for (const panel of dashboard.panels) {
    const { x, y, w, h } = panel.gridPos;
    for (let i = x; i < x + w; i++)
      for (let j = y; j < y + h; j++) {
        if (places.has(`${i} ${j}`) || i >= 24) yield `${panel.title}: lies over another, or beside the page`;
        places.add(`${i} ${j}`);
      }
    if (!(panel.description?.length > 10)) yield `${panel.title}: no description`;
    const unit = panel.type === "heatmap" ? panel.options.yAxis?.unit : panel.fieldConfig.defaults.unit;
    if (!unit) yield `${panel.title}: no unit`;
    // A quantile beyond the last bucket reads as that bucket's end.
    const quantile = panel.targets.some(({ expr }) => expr?.includes("histogram_quantile"));
    const more = panel.fieldConfig.defaults.mappings?.some(({ options }) => options.result?.text.startsWith("more than "));
    if (quantile && !more) yield `${panel.title}: what is beyond the last bucket reads as its end`;
    for (const target of panel.targets) yield* unbounded(panel, target);
  }
}

/// Where a name has 100,000 values, Loki refuses to count by it (max_query_series, 500): lines are bounded, and so is what is found in them.
function* unbounded(panel, target) {
  const by = /\bby\s*\(([^)]*)\)/.exec(target.expr ?? "")?.[1] ?? "";
  const many = /subject|resource|action|instance/.test(by);
  if (target.datasource.type === "loki" && many) yield `${panel.title}: counts in Loki by ${by}`;
  if (target.datasource.type === VICTORIALOGS && many && !/\blimit \d+$/.test(target.expr)) yield `${panel.title}: no limit`;
  if (panel.transformations?.some(({ id }) => id === "groupBy") && !(target.maxLines <= 5000)) yield `${panel.title}: no maxLines`;
}

/// Variables that a dashboard asks for and does not have.
function* unknown(dashboard) {
  const names = dashboard.templating.list.map((variable) => variable.name);
  const asked = new Set([...JSON.stringify(dashboard).matchAll(/\$\{?(\w+)/g)].map((found) => found[1]));
  for (const name of asked) if (!names.includes(name) && !/^(__|\d)/.test(name)) yield `no variable ${name}, which it asks for`;
}

/// What both twins have to have alike, apart from where log lines are.
function common(dashboard) {
  const alike = (panel) => JSON.parse(JSON.stringify(panel).replaceAll("VictoriaLogs", "Loki").replaceAll("${victorialogs}", "${loki}"));
  const logs = (datasource) => ["loki", VICTORIALOGS].includes(datasource?.type);
  const panels = dashboard.panels.map((panel) =>
    logs(panel.datasource) ? { id: panel.id, title: panel.title, type: panel.type, gridPos: panel.gridPos } : alike(panel),
  );
  const list = dashboard.templating.list.filter((variable) => !["loki", "victorialogs"].includes(variable.name));
  return JSON.stringify({ ...dashboard, panels, templating: { list } });
}

const root = process.argv[2];
const read = (folder) =>
  new Map(
    readdirSync(`${root}/deploy/grafana/${folder}`)
      .filter((file) => file.endsWith(".json"))
      .map((file) => [file, JSON.parse(readFileSync(`${root}/deploy/grafana/${folder}/${file}`, "utf8"))]),
  );
const [loki, twins] = [read("dashboards"), read("victorialogs")];
const errors = [];
for (const [folder, all] of [["dashboards", loki], ["victorialogs", twins]])
  for (const [file, dashboard] of all) for (const error of wrong(dashboard)) errors.push(`${folder}/${file}: ${error}`);
for (const [file, dashboard] of loki) {
  const asks = dashboard.panels.some((panel) => panel.datasource.type === "loki");
  if (asks !== twins.has(file)) errors.push(`${file}: ${asks ? "asks Loki, and has no twin" : "has a twin, and does not ask Loki"}`);
  else if (asks && common(dashboard) !== common(twins.get(file))) errors.push(`${file}: its twin is another`);
}

// A check that lets everything pass is none.
const broken = (change) => {
  const dashboard = structuredClone(loki.get("denial-spike.json"));
  change(dashboard, (title) => dashboard.panels.find((panel) => panel.title === title));
  return [...wrong(dashboard)].length > 0;
};
for (const change of [
  (d) => d.templating.list.pop(),
  (d) => d.panels.shift(),
  (d, panel) => delete panel("Behind").fieldConfig.defaults.unit,
  (d, panel) => delete panel("Findings").fieldConfig.defaults.unit,
  (d, panel) => delete panel("p99").fieldConfig.defaults.mappings,
  (d, panel) => (panel("Who is denied").description += " ${victorialogs}"),
  (d, panel) => delete panel("Who is denied").description,
  (d, panel) => delete panel("Who is denied").targets[0].maxLines,
  (d, panel) => (panel("Who is denied").targets[0].expr = 'topk(10, sum by (subject) (count_over_time({verdict="deny"}[1h])))'),
  (d, panel) => (panel("To do what").gridPos.x = 3),
])
  if (!broken(change)) errors.push(`taken for whole: ${change}`);

console.log(errors.join("\n") || `${loki.size} dashboards and ${twins.size} twins are whole`);
process.exit(errors.length > 0 || loki.size === 0 ? 1 : 0);
