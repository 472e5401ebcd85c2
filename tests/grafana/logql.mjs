// Every LogQL query of the dashboards, of deploy's YAML and of the docs is parsed by the grammar that Grafana's own editor uses (npm:
// @grafana/lezer-logql). A query that does not parse is named with its place: file, panel, column.
//
//   node logql.mjs ROOT          all of them
//   node logql.mjs --parse       one query from standard input
import { readdirSync, readFileSync } from "node:fs";
import { parser } from "@grafana/lezer-logql";
import { parseAllDocuments } from "yaml";

// What Grafana itself puts in.
const OWN = {
  __interval: "1m",
  __interval_ms: "60000",
  __range: "1h",
  __range_s: "3600",
  __range_ms: "3600000",
  __rate_interval: "4m",
  __auto: "1m",
  __from: "1767225600000",
  __to: "1767229200000",
};

/// A query as Grafana sends it: a variable of many values becomes a choice, one of a field or a span its value.
function replaced(query, variables) {
  const unknown = [];
  const text = query.replace(
    /\$\{([\w.]+)(?::\w+)?\}|\[\[(\w+)(?::\w+)?\]\]|\$(\w+)/g,
    (_, braces, brackets, plain) => {
      const name = braces ?? brackets ?? plain;
      if (name in OWN) return OWN[name];
      if (variables.includes(name)) return "(orders|payments)";
      if (/^__(field|data|value|span|trace)\b/.test(name)) return "orders";
      unknown.push(`$${name}`);
      return "";
    },
  );
  return { text, unknown };
}

/// What is wrong with a query, or nothing.
function wrong(query, variables = []) {
  const { text, unknown } = replaced(query, variables);
  if (unknown.length > 0) return `nothing gives ${unknown.join(", ")} a value: ${text}`;
  let at = text.trim() === "" ? 0 : -1;
  parser.parse(text).iterate({
    enter: (node) => {
      if (at < 0 && node.type.isError) at = node.from;
    },
  });
  return at < 0 ? undefined : `not LogQL at column ${at + 1}, at "${text.slice(at, at + 30)}": ${text}`;
}

// A stream selector: what a query of Loki always has, and one of Prometheus never, whose name stands before its braces or in them.
const SELECTOR = /(?<![\w:{$])\{\s*(?!__name__)[A-Za-z_]\w*\s*(=~|!~|!=|=)\s*\\?["`]/;

/// Calls `found` for each query in a document: what a Loki data source is asked, and every other text with a stream selector in it.
function walk(node, place, ofLoki, found) {
  if (Array.isArray(node)) {
    node.forEach((item, i) => walk(item, named(item, place, i), ofLoki, found));
  } else if (node !== null && typeof node === "object") {
    const loki = node.datasource?.type ? node.datasource.type === "loki" : ofLoki;
    for (const [key, value] of Object.entries(node)) {
      if (loki && key === "expr" && typeof value === "string") found(value, `${place}.${key}`);
      else walk(value, `${place}.${key}`, loki, found);
    }
  } else if (typeof node === "string" && SELECTOR.test(node)) {
    const panes = node.match(/[?&]panes=(\{.*\})/s);
    if (!panes) return found(node, place);
    // A link into Explore; a value of Grafana's may stand where JSON has a number.
    for (const pane of Object.values(JSON.parse(panes[1].replace(/:\$\{[\w.]+\}/g, ":0"))))
      for (const query of pane.queries) found(query.expr, `${place} (link to Explore)`);
  }
}

const named = (item, place, i) => (typeof item?.title === "string" ? `${place} "${item.title}"` : `${place}[${i}]`);

/// Queries in Markdown: code spans and lines of code blocks. A block of another language says so (```logsql).
function* inMarkdown(text) {
  let block = false;
  let logql = false;
  for (const [i, line] of text.split("\n").entries()) {
    if (line.startsWith("```")) {
      block = !block;
      logql = ["```", "```logql"].includes(line.trim());
    } else if (block && logql && SELECTOR.test(line)) yield [line, `line ${i + 1}`];
    else if (!block) for (const [, code] of line.matchAll(/`([^`]+)`/g)) if (SELECTOR.test(code)) yield [code, `line ${i + 1}`];
  }
}

function check(root) {
  const queries = [];
  const files = ["deploy", "docs", "pipelines"]
    .flatMap((folder) => readdirSync(`${root}/${folder}`, { recursive: true }).map((file) => `${folder}/${file}`))
    .concat(readdirSync(root))
    .sort();
  const ending = (end) => files.filter((file) => file.endsWith(end)).map((file) => [file, readFileSync(`${root}/${file}`, "utf8")]);
  for (const [file, text] of ending(".json")) {
    if (!file.startsWith("deploy/grafana/dashboards/")) continue;
    const dashboard = JSON.parse(text);
    const variables = dashboard.templating.list.map((variable) => variable.name);
    walk(dashboard, "", false, (query, place) => queries.push({ query, variables, place: `${file}: ${place}` }));
  }
  const dashboards = queries.length;
  for (const [file, text] of ending(".yaml")) {
    // The chart's templates are YAML only when rendered.
    if (file.includes("/templates/")) continue;
    for (const document of parseAllDocuments(text, { logLevel: "silent" }))
      // $$ is a dollar where Grafana reads the environment.
      walk(document.toJS(), "", false, (query, place) =>
        queries.push({ query: query.replaceAll("$$", "$"), variables: [], place: `${file}: ${place}` }),
      );
  }
  for (const [file, text] of ending(".md"))
    for (const [query, place] of inMarkdown(text)) queries.push({ query, variables: [], place: `${file}: ${place}` });
  return { queries, dashboards };
}

// A check that lets everything pass is none.
for (const broken of [
  '{verdict="deny"',
  '{verdict=deny}',
  '{verdict="deny"} | json subject=',
  '{verdict="deny"} | jsonx',
  'sum by (subject) (count_over_time({verdict="deny"}))',
  'topk(10, rate({verdict="deny"}[$nothing]))',
  '{verdict="deny"} |= unquoted',
  "",
])
  if (!wrong(broken)) throw new Error(`taken for LogQL: ${broken}`);

if (process.argv[2] === "--parse") {
  const error = wrong(readFileSync(0, "utf8").trim());
  console.log(error ?? "LogQL");
  process.exit(error ? 1 : 0);
}
const { queries, dashboards } = check(process.argv[2]);
const errors = queries.flatMap(({ query, variables, place }) => {
  const error = wrong(query, variables);
  return error ? [`${place}: ${error}`] : [];
});
console.log(errors.join("\n") || `${queries.length} queries are LogQL, ${dashboards} of them in dashboards`);
process.exit(errors.length > 0 || dashboards === 0 ? 1 : 0);
