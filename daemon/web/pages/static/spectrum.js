// The spectrum of a layer with values under the pointer, in place of the two pictures of it. Where anything is missing,
// the pictures stay.
(() => {
  "use strict";

  const HEIGHT = 300;
  const TWO_COLUMNS = 860;
  const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const short = (value) => (value === null || value === undefined ? "-" : Number(value.toPrecision(4)).toString());

  const power = (exponent) =>
    `10${exponent < 0 ? "⁻" : ""}${[...String(Math.abs(exponent))].map((digit) => SUPERSCRIPTS[digit]).join("")}`;

  const isPower = (value) => Math.abs(Math.log10(value) - Math.round(Math.log10(value))) < 1e-9;
  const powers = (_, splits) => splits.map((value) => (isPower(value) ? value : null));

  // Powers of ten, as many as there is room for; where the axis has fewer than two of them, also 2 and 5 times those.
  const labels = (chart, splits, side) => {
    const exponents = splits.map((value) => Math.log10(value));
    const decades = Math.max(...exponents) - Math.min(...exponents);
    const step = Math.max(1, Math.ceil(decades / (side === 0 ? chart.width / 46 : chart.height / 22)));
    return splits.map((value, place) => {
      const whole = Math.round(exponents[place]);
      if (isPower(value)) return whole % step === 0 ? power(whole) : "";
      const digit = Math.round(value / 10 ** Math.floor(exponents[place]));
      return decades < 2 && (digit === 2 || digit === 5) ? short(value) : "";
    });
  };

  const axis = (label) => ({
    label,
    labelSize: 24,
    size: label === "eigenvalue" ? 40 : 58,
    stroke: colour("--chart-faint"),
    grid: { stroke: colour("--chart-grid"), width: 1, filter: powers },
    ticks: { stroke: colour("--chart-grid"), width: 1, filter: powers },
    font: "12px system-ui, sans-serif",
    labelFont: "12px system-ui, sans-serif",
    filter: (_, splits) => splits,
    values: labels,
  });

  const curve = (label, stroke, paths, more = {}) => ({
    label,
    stroke,
    width: 1.8,
    paths,
    points: { show: false },
    value: (_, value) => short(value),
    ...more,
  });

  // One chart: the curves that there are, over common points.
  const drawn = (place, title, curves, told, paths) => {
    const dashed = { dash: [6, 4] };
    const known = [
      [curves.layer, curve("this version", colour("--chart-layer"), paths)],
      [curves.baseline, curve("baseline", colour("--chart-baseline"), paths)],
      [curves.fit, curve("power law", colour("--chart-fit"), undefined, dashed)],
      [curves.bulk, curve("noise (Marchenko-Pastur)", colour("--chart-bulk"), undefined, dashed)],
    ].filter(([values]) => values);
    const box = document.createElement("div");
    box.setAttribute("role", "img");
    box.setAttribute("aria-label", `${title} of ${told.layer}; the numbers are below`);
    place.append(box);
    const options = {
      title,
      width: 400,
      height: HEIGHT,
      cursor: { y: false, drag: { x: true, y: false } },
      scales: { x: { time: false, distr: 3 }, y: { distr: 3 } },
      axes: [axis("eigenvalue"), axis(title.toLowerCase())],
      series: [{ label: "eigenvalue", value: (_, value) => short(value) }, ...known.map(([, series]) => series)],
    };
    return new uPlot(options, [curves.x, ...known.map(([values]) => values)], box);
  };

  const show = (place, told) => {
    const steps = uPlot.paths.stepped;
    const charts = [
      drawn(place, "Density", told.density, told, steps({ align: 0 })),
      drawn(place, "Share at or above", told.ccdf, told, steps({ align: -1 })),
    ];
    const fit = () => {
      const room = place.clientWidth - 26;
      const width = room >= TWO_COLUMNS ? Math.floor((room - 20) / 2) : room;
      charts.forEach((chart) => chart.setSize({ width, height: HEIGHT }));
    };
    place.hidden = false;
    fit();
    window.addEventListener("resize", fit);
    const hint = document.createElement("p");
    hint.className = "detail";
    hint.textContent = "Point at a curve for its values; drag to look closer, double-click for all of it again.";
    place.append(hint);
    document.querySelectorAll("[data-drawn]").forEach((picture) => {
      picture.hidden = true;
    });
  };

  const load = async (place) => {
    const answer = await fetch(place.dataset.spectrum, { headers: { Accept: "application/json" } });
    if (answer.ok) show(place, await answer.json());
  };

  const place = document.querySelector("[data-spectrum]");
  if (place && typeof uPlot === "function") load(place).catch(() => undefined);
})();
