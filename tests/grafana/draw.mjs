// Draws a dashboard as a page: each panel's queries are asked of real servers, and what they answer is drawn by a chart library at the panel's place,
// in its unit. It is not Grafana: colours, fonts and legends are its own. What it shows is what there is to see.
//
//   node draw.mjs DASHBOARD.json SECONDS PAGE.html      of the last so many seconds
//
// PROMETHEUS_URL, VICTORIALOGS_URL, OPENSEARCH_URL with INDEX; PIPELINE.
import { readFileSync, writeFileSync } from "node:fs";

const [, , file, seconds, page] = process.argv;
const dashboard = JSON.parse(readFileSync(file, "utf8"));
const to = Math.floor(Date.now() / 1000) - 3;
const from = to - Number(seconds);
const step = Math.max(1, Math.round(seconds / 120));
const any = dashboard.panels.every((p) => p.datasource.type === "elasticsearch") ? "*" : ".*";
const VARIABLES = {
  pipeline: process.env.PIPELINE ?? ".*",
  service: any,
  policy: any,
  filter: "*",
  __rate_interval: `${Math.max(4, step + 1)}s`,
  __range: `${seconds}s`,
  __interval: `${step}s`,
};
const replaced = (text) => text.replace(/\$(\w+)/g, (_, name) => VARIABLES[name] ?? `$${name}`);

async function ask(url, asked, body) {
  const full = `${url}?${new URLSearchParams(asked)}`;
  const init = body && { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(full, init);
  const text = await response.text();
  if (!response.ok) throw new Error(`${full}: ${response.status} ${text}`);
  return text;
}

/// What a target finds: series (name, labels, points), or rows.
const SOURCES = {
  async prometheus(target) {
    const instant = target.instant === true;
    const when = instant ? { time: to } : { start: from, end: to, step };
    // What is compared with a day before is compared with half the range before: there is no day.
    const query = replaced(target.expr).replace(/offset [17]d/g, `offset ${Math.round(seconds / 2)}s`).replace(/\[5m\]|:5m\]/g, (t) => (t[0] === ":" ? ":10s]" : "[30s]"));
    const text = await ask(`${process.env.PROMETHEUS_URL}/api/v1/query${instant ? "" : "_range"}`, { query, ...when });
    return { series: JSON.parse(text).data.result.map((s) => named(target, s.metric, s.values ?? [s.value])) };
  },
  async "victoriametrics-logs-datasource"(target) {
    const [query, base] = [replaced(target.expr), `${process.env.VICTORIALOGS_URL}/select/logsql`];
    if (target.queryType === "stats") {
      const text = await ask(`${base}/stats_query`, { query, time: to, start: from, end: to });
      return { series: JSON.parse(text).data.result.map((s) => named(target, s.metric, [s.value])) };
    }
    const text = await ask(`${base}/query`, { query, start: from, end: to, limit: target.maxLines });
    const rows = text.trim().split("\n").filter(Boolean).map((line) => JSON.parse(line));
    return { rows: rows.sort((a, b) => (a._time < b._time ? 1 : -1)).map(({ _time, _msg }) => ({ _time, _msg })) };
  },
  async elasticsearch(target) {
    const range = { [target.timeField]: { gte: from * 1000, lte: to * 1000, format: "epoch_millis" } };
    const filter = [{ range }, { query_string: { analyze_wildcard: true, query: replaced(target.query) } }];
    const raw = target.metrics[0].type === "raw_data";
    const body = { size: raw ? Number(target.metrics[0].settings.size) : 0, query: { bool: { filter } }, sort: [{ [target.timeField]: "desc" }] };
    const inner = (aggregations) => {
      if (aggregations.length === 0) return undefined;
      const [{ id, type, field, settings }, ...rest] = aggregations;
      const one =
        type === "terms"
          ? { terms: { field, size: Number(settings.size) } }
          : { date_histogram: { field, fixed_interval: `${step}s`, extended_bounds: { min: from * 1000, max: to * 1000 } } };
      return { [id]: { ...one, aggs: inner(rest) } };
    };
    if (!raw) body.aggs = inner(target.bucketAggs);
    const answer = JSON.parse(await ask(`${process.env.OPENSEARCH_URL}/${process.env.INDEX}/_search`, {}, body));
    if (raw) return { rows: answer.hits.hits.map((hit) => flat(hit._source)) };
    const series = [];
    const rows = [];
    const walk = (found, aggregations, labels) => {
      const [first, ...rest] = aggregations;
      const buckets = found[first.id].buckets;
      if (first.type === "date_histogram") {
        const points = buckets.map((b) => [b.key / 1000, b.doc_count]);
        series.push({ name: Object.values(labels).join(" ") || "Count", labels, points });
      } else if (rest.length > 0) for (const b of buckets) walk(b, rest, { ...labels, [first.field]: b.key });
      else for (const b of buckets) rows.push({ ...labels, [first.field]: b.key, Count: b.doc_count });
    };
    walk(answer.aggregations, target.bucketAggs, {});
    return { series, rows };
  },
};

function named(target, metric, values) {
  const { __name__, ...labels } = metric;
  const legend = target.legendFormat?.replace(/\{\{\s*([\w.]+)\s*\}\}/g, (_, label) => labels[label] ?? "").trim();
  const points = values.map(([at, value]) => [Number(at), Number(value)]);
  return { name: legend ?? (Object.values(labels).join(" ") || "Value"), labels, points };
}

function flat(source, prefix = "", out = {}) {
  for (const [key, value] of Object.entries(source))
    if (value !== null && typeof value === "object" && !Array.isArray(value)) flat(value, `${prefix}${key}.`, out);
    else out[prefix + key] = Array.isArray(value) ? value.join("; ") : value;
  return out;
}

/// What stands in a table.
function table(panel, found) {
  let rows = found.flatMap((f) => f.rows ?? f.series.map((s) => ({ ...s.labels, Value: s.points.at(-1)[1] })));
  for (const { id, options } of panel.transformations ?? []) {
    const keep = (name) => (id === "filterFieldsByName" ? options.include.names.includes(name) : !options.excludeByName?.[name]);
    rows = rows.map((row) => Object.fromEntries(Object.entries(row).filter(([name]) => keep(name))));
    if (id === "filterFieldsByName")
      rows = rows.map((row) => Object.fromEntries(options.include.names.filter((n) => n in row).map((n) => [n, row[n]])));
  }
  return rows.slice(0, 60);
}

/// The colours that names have.
const colours = ({ overrides }) => Object.fromEntries(overrides.map(({ matcher, properties }) => [matcher.options, properties[0].value.fixedColor]));

const panels = [];
for (const panel of dashboard.panels) {
  const found = [];
  for (const target of panel.targets) found.push(await SOURCES[target.datasource.type](target));
  const { title, type, description, gridPos, fieldConfig } = panel;
  const of = { title, type, description, gridPos, unit: panel.options.yAxis?.unit ?? fieldConfig.defaults.unit, colours: colours(fieldConfig), calcs: panel.options.reduceOptions?.calcs };
  const series = found.flatMap((f) => f.series ?? []);
  panels.push(["table", "logs"].includes(type) ? { ...of, rows: table(panel, found) } : { ...of, series });
  const empty = ["table", "logs"].includes(type) ? panels.at(-1).rows.length === 0 : series.every((s) => s.points.every(([, v]) => Number.isNaN(v)));
  if (empty) console.error(`${file}: ${title}: no data`);
}
const here = new URL(".", import.meta.url);
const text = readFileSync(new URL("draw.html", here), "utf8")
  .replace("ECHARTS", () => new URL("node_modules/echarts/dist/echarts.min.js", `file://${process.env.MODULES}/`).pathname)
  .replace("DATA", () => JSON.stringify({ title: dashboard.title, from, to, panels }).replaceAll("<", "\\u003c"));
writeFileSync(page, text);
const height = Math.max(...dashboard.panels.map(({ gridPos }) => gridPos.y + gridPos.h)) * 38 + 60;
console.log(height);
