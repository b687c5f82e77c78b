// Draws a dashboard from its JSON and the answers of Prometheus, with the components that Grafana publishes. Those of
// the bar chart, the heatmap and the state timeline it does not: these three are drawn here, in its colours.
import React from "react";
import { createRoot } from "react-dom/client";
import {
  createTheme, FieldType, getDisplayProcessor, getFieldDisplayName, outerJoinDataFrames, standardTransformers,
  standardTransformersRegistry, toDataFrame, transformDataFrame, dateTime, ThemeContext,
} from "@grafana/data";
import { BigValue, GlobalStyles, PanelChrome, Table, TimeSeries, VizLegend } from "@grafana/ui";
import { lastValueFrom } from "rxjs";

const theme = createTheme({ colors: { mode: window.DATA.mode } });
// Grafana's grid: 24 columns, rows of 30 pixels with 8 between them.
const GRID = 38;
const GAP = 8;
const WIDTH = 1600;
const columnWidth = (WIDTH + GAP) / 24;
const { dashboard, answers, from, to, variables } = window.DATA;
const range = { from: dateTime(from * 1000), to: dateTime(to * 1000), raw: { from: dateTime(from * 1000), to: dateTime(to * 1000) } };

const byId = new Map(Object.values(standardTransformers).map((one) => [one.id, one]));
standardTransformersRegistry.setInit(() =>
  Array.from(byId, ([id, transformation]) => ({ id, name: transformation.name, transformation: async () => transformation })),
);

/** Field settings of the panel and of the overrides that name the field. */
function settle(frame, panel, frames) {
  const { defaults, overrides } = panel.fieldConfig;
  return {
    ...frame,
    fields: frame.fields.map((field) => {
      const name = getFieldDisplayName(field, frame, frames);
      const config = { ...defaults, custom: { ...defaults.custom }, ...field.config };
      for (const { matcher, properties } of overrides) {
        const fits = matcher.id === "byName" ? matcher.options === name : new RegExp(matcher.options).test(name);
        for (const { id, value } of fits ? properties : []) {
          const [first, rest] = id.split(".");
          if (rest) config.custom[rest] = value; else config[first] = value;
        }
      }
      const settled = { ...field, config, state: { ...field.state, displayName: name } };
      settled.display = getDisplayProcessor({ field: settled, theme, timeZone: "utc" });
      return settled;
    }),
  };
}

function seriesFrames(panel) {
  const found = [];
  for (const target of panel.targets) {
    for (const series of answers[panel.id][target.refId]) {
      const legend = (target.legendFormat || "").replace(/{{(\w+)}}/g, (_, label) => series.metric[label] ?? "");
      const points = series.values ?? [series.value];
      found.push(toDataFrame({
        refId: target.refId,
        fields: [
          { name: "Time", type: FieldType.time, values: points.map(([at]) => at * 1000), config: { interval: 1000 } },
          { name: "Value", type: FieldType.number, values: points.map(([, value]) => (value === "NaN" ? null : Number(value))),
            config: legend ? { displayNameFromDS: legend } : {}, labels: series.metric },
        ],
      }));
    }
  }
  return found;
}

function Stat({ panel, width, height }) {
  const [frame] = seriesFrames(panel);
  const { defaults } = panel.fieldConfig;
  if (!frame) {
    const display = getDisplayProcessor({ field: { type: FieldType.number, config: defaults }, theme });
    return <BigValue theme={theme} width={width} height={height} colorMode={panel.options.colorMode} graphMode="none"
      value={{ ...display(null), text: defaults.noValue ?? "No data" }} />;
  }
  const field = settle(frame, panel, [frame]).fields[1];
  return <BigValue theme={theme} width={width} height={height} colorMode={panel.options.colorMode} graphMode="none"
    justifyMode="auto" textMode="value" value={field.display(field.values[field.values.length - 1])} />;
}

function Lines({ panel, width, height }) {
  const frames = seriesFrames(panel);
  if (!frames.length) return <Empty panel={panel} />;
  const settled = frames.map((frame) => settle(frame, panel, frames));
  settled.forEach((frame, index) => {
    const field = frame.fields[1];
    field.state = { ...field.state, seriesIndex: index };
    field.config.custom = { drawStyle: "line", lineInterpolation: "stepAfter", axisPlacement: "auto", ...field.config.custom };
    if (!field.config.color) field.config.color = { mode: "palette-classic" };
    field.display = getDisplayProcessor({ field, theme, timeZone: "utc" });
  });
  return <TimeSeries frames={settled} width={width} height={height} timeRange={range} timeZone="utc"
    legend={{ showLegend: true, displayMode: "list", placement: "bottom", calcs: [] }} structureRev={1} />;
}

function Rows({ frame, width, height }) {
  const hidden = frame.fields.filter((field) => !field.config.custom?.hidden);
  return <Table data={{ ...frame, fields: hidden, length: frame.length }} width={width} height={height} showTypeIcons={false} />;
}

function Empty({ panel }) {
  return <div style={{ color: theme.colors.text.secondary, padding: 24, textAlign: "center" }}>
    {panel.fieldConfig.defaults.noValue ?? "No data"}</div>;
}

/** Bars side by side. */
function Bars({ frame, width, height }) {
  const [names, ...others] = frame.fields;
  const shown = others.filter((field) => field.type === FieldType.number);
  const bottom = 118, left = 46, top = 8;
  const highest = Math.max(...shown.flatMap((field) => field.values.filter((value) => value != null)));
  const y = (value) => top + (height - bottom - top) * (1 - value / (highest * 1.05));
  const slot = (width - left) / names.values.length;
  const ticks = Array.from({ length: 5 }, (_, index) => (Math.ceil(highest) / 4) * index).filter((tick) => tick <= highest * 1.05);
  return <svg width={width} height={height} fontSize="11" fontFamily={theme.typography.fontFamily} fill={theme.colors.text.primary}>
    {ticks.map((tick) => <g key={tick}>
      <line x1={left} x2={width} y1={y(tick)} y2={y(tick)} stroke={theme.colors.border.weak} />
      <text x={left - 6} y={y(tick) + 4} textAnchor="end">{tick.toFixed(1)}</text></g>)}
    {names.values.map((name, row) => <g key={name}>
      {shown.map((field, index) => {
        const value = field.values[row];
        const bar = (slot * 0.8) / shown.length;
        return value == null ? null : <rect key={index} x={left + slot * row + slot * 0.1 + bar * index} width={bar * 0.95}
          y={y(value)} height={height - bottom - y(value)} fill={field.config.color.fixedColor} />;
      })}
      <text transform={`translate(${left + slot * (row + 0.6)},${height - bottom + 14}) rotate(-45)`} textAnchor="end">{name.slice(0, 24)}</text></g>)}
    {shown.map((field, index) => <g key={index} transform={`translate(${left + 170 * index},${height - 8})`}>
      <rect width="14" height="4" y="-7" fill={field.config.color.fixedColor} /><text x="20">{field.state.displayName}</text></g>)}
  </svg>;
}

const VIRIDIS = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];

/** Rows over time, coloured by value or by the word for it. */
function Cells({ panel, width, height, color }) {
  const frames = seriesFrames(panel).map((frame) => settle(frame, panel, [frame]));
  const left = 190, bottom = 44;
  const names = frames.map((frame) => getFieldDisplayName(frame.fields[1], frame, frames));
  const row = (height - bottom) / frames.length;
  const values = frames.flatMap((frame) => Array.from(frame.fields[1].values));
  const low = Math.min(...values), high = Math.max(...values);
  const x = (at) => left + ((width - left) * (at / 1000 - from)) / (to - from);
  const of = (field, value) => color === "scheme"
    ? VIRIDIS[Math.round(((value - low) / (high - low || 1)) * (VIRIDIS.length - 1))]
    : field.display(value).color;
  const legend = color === "scheme"
    ? VIRIDIS.map((one, index) => [one, index === 0 ? low.toFixed(2) : index === VIRIDIS.length - 1 ? high.toFixed(2) : ""])
    : Object.values(panel.fieldConfig.defaults.mappings[0].options).map((one) => [one.color, one.text]);
  const ticks = Array.from({ length: 5 }, (_, index) => from + ((to - from) * (index + 0.5)) / 5);
  return <svg width={width} height={height} fontSize="11" fontFamily={theme.typography.fontFamily} fill={theme.colors.text.primary}>
    {frames.map((frame, place) => {
      const [{ values: times }, field] = frame.fields;
      return <g key={place}><text x={left - 8} y={row * (place + 0.5) + 4} textAnchor="end">{names[place]}</text>
        {times.map((at, number) => <rect key={number} x={x(at)} y={row * place + 1} height={row - 2}
          width={x(at + 1000) - x(at) + 0.4} fill={of(field, field.values[number])} />)}</g>;
    })}
    {ticks.map((at) => <text key={at} x={x(at * 1000)} y={height - bottom + 14} textAnchor="middle">
      {new Date(at * 1000).toISOString().slice(11, 19)}</text>)}
    {legend.map(([one, text], index) => <g key={index} transform={`translate(${left + (color === "scheme" ? 24 : 90) * index},${height - 10})`}>
      <rect width={color === "scheme" ? 24 : 14} height="6" y="-8" fill={one} />
      <text x={color === "scheme" ? (index ? 28 : 0) : 20} y={color === "scheme" && !index ? -12 : 0}>{text}</text></g>)}
  </svg>;
}

function Content({ panel, frame, width, height }) {
  if (panel.type === "stat") return <Stat {...{ panel, width, height }} />;
  if (panel.type === "timeseries") return <Lines {...{ panel, width, height }} />;
  if (panel.type === "heatmap") return <Cells {...{ panel, width, height }} color="scheme" />;
  if (panel.type === "state-timeline") return <Cells {...{ panel, width, height }} color="words" />;
  if (!frame || !frame.length) return <Empty panel={panel} />;
  return panel.type === "table" ? <Rows {...{ frame, width, height }} /> : <Bars {...{ frame, width, height }} />;
}

const fill = (text) => text.replace(/\$\{(\w+)(?::\w+)?\}|\$(\w+)/g, (all, one, other) => variables[one ?? other] ?? all);

async function main() {
  const shown = [];
  for (const panel of dashboard.panels) {
    const inner = panel.type === "row" ? panel.panels ?? [] : [panel];
    if (panel.type === "row") {
      const heading = { ...theme.typography.h6, position: "absolute", top: panel.gridPos.y * GRID, paddingTop: 6 };
      shown.push(<div key={panel.id} style={heading}>▾ {panel.title}</div>);
    }
    for (const one of inner) {
      let frame = null;
      if (one.transformations) {
        const frames = window.DATA.frames[one.id].map((given) => toDataFrame(given));
        const found = await lastValueFrom(transformDataFrame(one.transformations, frames, { interpolate: (text) => text }));
        if (found.length) frame = settle(found[0], one, found);
      }
      const at = one.gridPos;
      const width = at.w * columnWidth - GAP, height = at.h * GRID - GAP;
      shown.push(
        <div key={one.id} style={{ position: "absolute", left: at.x * columnWidth, top: at.y * GRID, width, height }}>
          <PanelChrome title={fill(one.title)} width={width} height={height} padding={one.type === "table" ? "none" : "sm"}>
            {(innerWidth, innerHeight) => <Content panel={one} frame={frame} width={innerWidth} height={innerHeight} />}
          </PanelChrome>
        </div>);
    }
  }
  const below = Math.max(...dashboard.panels.flatMap((panel) => [panel, ...(panel.panels ?? [])]).map(({ gridPos }) => gridPos.y + gridPos.h));
  const chosen = dashboard.templating.list.filter((one) => one.name !== "datasource");
  createRoot(document.getElementById("root")).render(
    <ThemeContext.Provider value={theme}><GlobalStyles />
      <div style={{ background: theme.colors.background.canvas, color: theme.colors.text.primary, padding: 16, width: WIDTH + 32 }}>
        <div style={{ ...theme.typography.h4, marginBottom: 8 }}>{dashboard.title}</div>
        <div style={{ display: "flex", gap: 8, marginBottom: 12 }}>{chosen.map((one) =>
          <span key={one.name} style={{ border: `1px solid ${theme.colors.border.medium}`, borderRadius: 2, padding: "4px 8px" }}>
            <span style={{ color: theme.colors.text.secondary, marginRight: 8 }}>{one.label}</span>{variables[one.name]}</span>)}</div>
        <div style={{ position: "relative", height: below * GRID }}>{shown}</div>
      </div>
    </ThemeContext.Provider>);
}

main().catch((error) => { document.body.textContent = String(error.stack); });
