// Runs the transformations of panels with Grafana's own code (@grafana/data) over the frames of their queries.
// In: a list of {title, transformations, frames} as JSON on the standard input. Out: title -> list of frames, each a list of
// {name, type, values}.
"use strict";
const grafana = require("@grafana/data");
const { lastValueFrom } = require("rxjs");
// It asks its window whether it is in a browser's scene; the packages above must not take this for a browser.
globalThis.window = globalThis;

// Some have a second name in the table of all.
const byId = new Map(Object.values(grafana.standardTransformers).map((one) => [one.id, one]));
grafana.standardTransformersRegistry.setInit(() =>
  Array.from(byId, ([id, transformation]) => ({ id, name: transformation.name, transformation: async () => transformation })),
);

async function main() {
  const panels = JSON.parse(require("fs").readFileSync(0, "utf8"));
  const shown = {};
  for (const panel of panels) {
    const frames = panel.frames.map((frame) => grafana.toDataFrame(frame));
    const context = { interpolate: (text) => text };
    const found = await lastValueFrom(grafana.transformDataFrame(panel.transformations, frames, context));
    shown[panel.title] = found.map((frame) =>
      frame.fields.map((field) => ({
        name: grafana.getFieldDisplayName(field, frame, found),
        type: field.type,
        values: Array.from(field.values),
      })),
    );
  }
  process.stdout.write(JSON.stringify(shown));
}

main();
