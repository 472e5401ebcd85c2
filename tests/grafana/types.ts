// What a dashboard may hold, by Grafana's published types, as plain JSON: enums are their values, and nothing has methods.
import type * as bargauge from "@grafana/grafana-foundation-sdk/bargauge";
import type * as dashboard from "@grafana/grafana-foundation-sdk/dashboard";
import type * as elasticsearch from "@grafana/grafana-foundation-sdk/elasticsearch";
import type * as heatmap from "@grafana/grafana-foundation-sdk/heatmap";
import type * as logs from "@grafana/grafana-foundation-sdk/logs";
import type * as loki from "@grafana/grafana-foundation-sdk/loki";
import type * as prometheus from "@grafana/grafana-foundation-sdk/prometheus";
import type * as stat from "@grafana/grafana-foundation-sdk/stat";
import type * as table from "@grafana/grafana-foundation-sdk/table";
import type * as timeseries from "@grafana/grafana-foundation-sdk/timeseries";

type Data<T> = { [K in keyof T as T[K] extends Function ? never : K]: Plain<T[K]> };
type Plain<T> = T extends string ? `${T}` : T extends number | boolean | null | undefined ? T : T extends (infer U)[] ? Plain<U>[] : T extends object ? Data<T> : T;
type Some<T> = T extends (infer U)[] ? Some<U>[] : T extends object ? { [K in keyof T]?: Some<T[K]> } : T;

// A target names its data source by type, so that each is held to its own kind of query.
type Target =
  | (Plain<prometheus.Dataquery> & { datasource: { type: "prometheus"; uid: string } })
  | (Plain<loki.dataquery> & { datasource: { type: "loki"; uid: string } })
  | (Plain<elasticsearch.dataquery> & { datasource: { type: "elasticsearch"; uid: string } })
  | VictoriaLogs;
// What the plugin's own code takes (VictoriaMetrics/victorialogs-datasource); it publishes no types.
type VictoriaLogs = {
  refId: string;
  datasource: { type: "victoriametrics-logs-datasource"; uid: string };
  expr: string;
  queryType: "instant" | "stats" | "statsRange" | "hits";
  legendFormat?: string;
  maxLines?: number;
};
type Base = Omit<Plain<dashboard.Panel>, "targets" | "type" | "options"> & { title: string; description: string; targets: Target[] };
type Of<Type extends string, Options> = Base & { type: Type; options: Some<Plain<Options>> };
type Panel =
  | Of<"timeseries", timeseries.Options>
  | Of<"bargauge", bargauge.Options>
  | Of<"stat", stat.Options>
  | Of<"table", table.Options>
  | Of<"heatmap", heatmap.Options>
  | Of<"logs", logs.Options>;

export type Dashboard = Omit<Plain<dashboard.Dashboard>, "panels" | "templating"> & {
  uid: string;
  title: string;
  templating: { list: Plain<dashboard.VariableModel>[] };
  panels: Panel[];
};
