// What the page does beyond showing: sorting, filtering, records, the plot, the reader of predictions.
// Text becomes text nodes and attributes only: no markup is ever made of data.
"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const byId = (id) => document.getElementById(id);
  const read = (id) => JSON.parse(byId(id).textContent);
  const runs = read("data-runs");
  const reading = read("data-predictions");
  const runOf = new Map(runs.runs.map((run) => [run.id, run]));

  function fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : String(value));
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  }
  const make = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  const draw = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
  function choice(label, options, chosen, changed) {
    const select = make("select", { onchange: () => changed(select.value) });
    for (const [value, text] of options) select.append(make("option", { value, selected: value === chosen }, text));
    return [make("label", {}, label, select), select];
  }
  // An arm's name may break after its signs, "lora@targets=all,rank=8".
  const breaking = (name) => name.split(/(?<=[@,])/).flatMap((part) => [part, make("wbr")]);
  const counted = (count, one) => `${count} ${one}${count === 1 ? "" : "s"}`;

  // --- tables: sorted by a click on a header ---

  function cellKey(cell, numeric) {
    if (!numeric) return cell.textContent.toLowerCase();
    const text = cell.dataset.value ?? cell.textContent.replace(/[,<]/g, "").replace(/−/g, "-").replace(/^\[/, "");
    return text === "" ? NaN : parseFloat(text);
  }
  function sortRows(table, header, column) {
    const ascending = header.getAttribute("aria-sort") !== "ascending";
    const numeric = header.classList.contains("number");
    const rows = [...table.tBodies[0].rows].map((row) => [cellKey(row.cells[column], numeric), row]);
    const order = ascending ? 1 : -1;
    rows.sort(([a], [b]) => {
      if (numeric) {
        // Rows without a number stand last, whichever way the others go.
        if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
        return order * (a - b);
      }
      return order * (a < b ? -1 : a > b ? 1 : 0);
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
    for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  }
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((header, column) => {
      const button = make("button", { type: "button", onclick: () => sortRows(table, header, column) });
      button.append(...header.childNodes);
      header.replaceChildren(button);
      header.setAttribute("aria-sort", "none");
    });
  }

  // --- the run table: filtered by text, status, stage, arm, or by the runs behind a number ---

  const only = { text: "", status: "", kind: "", arm: "", ids: null };
  const runTable = byId("run-table");
  let told = null, chip = null;

  function showRuns() {
    if (!runTable) return;
    let shown = 0;
    for (const row of runTable.tBodies[0].rows) {
      const run = runOf.get(row.id.slice(4));
      const fits = (only.ids === null || only.ids.has(run.id)) && (!only.status || run.status === only.status)
        && (!only.kind || run.kind === only.kind) && (!only.arm || run.arm === Number(only.arm))
        && (!only.text || row.textContent.toLowerCase().includes(only.text) || run.id.includes(only.text));
      row.hidden = !fits;
      shown += fits;
    }
    told.textContent = `${shown} of ${counted(runs.runs.length, "run")} shown`;
    chip.hidden = only.ids === null;
    chip.firstChild.textContent = only.ids === null ? "" : `Only the ${counted(only.ids.size, "run")} behind a number `;
  }
  function filterControls() {
    const different = (key) => [...new Set(runs.runs.map((run) => run[key]))].map((value) => [value, value]);
    const search = make("input", { type: "search", oninput: () => { only.text = search.value.toLowerCase(); showRuns(); } });
    const set = (key) => (value) => { only[key] = value; showRuns(); };
    const [status, statusSelect] = choice("status", [["", "all"], ...different("status")], "", set("status"));
    const [kind, kindSelect] = choice("stage", [["", "all"], ...different("kind")], "", set("kind"));
    const [arm, armSelect] = choice("arm", [["", "all"], ...runs.arms.map((name, index) => [String(index), name])], "",
      set("arm"));
    const all = () => {
      Object.assign(only, { text: "", status: "", kind: "", arm: "", ids: null });
      search.value = statusSelect.value = kindSelect.value = armSelect.value = "";
    };
    const reset = () => { all(); history.replaceState(null, "", "#runs"); showRuns(); };
    chip = make("span", { class: "chip" }, make("span"),
      make("button", { type: "button", class: "button", onclick: reset }, "Show all runs"));
    told = make("p", { class: "told", role: "status" });
    byId("run-filter").append(
      make("div", { class: "controls" }, make("label", {}, "search", search), status, kind, arm, chip), told);
    showRuns();
    return all;
  }
  const clearFilter = runTable ? filterControls() : () => {};

  function showOnly(ids) {
    clearFilter();
    only.ids = new Set(ids.filter((id) => runOf.has(id)));
    showRuns();
    const section = byId("runs");
    section.scrollIntoView();
    const heading = section.querySelector("h2");
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
  }
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest("a[data-runs]") : null;
    if (!link) return;
    event.preventDefault();
    const hash = "#runs=" + link.dataset.runs.split(" ").join(",");
    if (location.hash === hash) follow(); else location.hash = hash;
  });

  // --- the record of a run ---

  const dialog = make("dialog", { id: "record", "aria-labelledby": "record-title" });
  document.body.append(dialog);
  dialog.addEventListener("close", () => {
    if (location.hash.startsWith("#run-")) history.replaceState(null, "", "#runs");
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  function partTable(part) {
    const rows = part.rows.map(([name, ...values]) =>
      make("tr", {}, make("th", { scope: "row" }, name), ...values.map((value) => make("td", {}, value))));
    const head = part.head.length
      ? make("thead", {}, make("tr", {}, ...part.head.map((name) => make("th", { scope: "col" }, name)))) : null;
    return make("div", { class: "scroll" }, make("table", {}, head, make("tbody", {}, ...rows)));
  }
  function openRun(run) {
    for (const row of document.querySelectorAll("tr.chosen")) row.classList.remove("chosen");
    const row = byId("run-" + run.id);
    row.classList.add("chosen");
    const place = reading.systems.findIndex((system) => system.run === run.id);
    const toReader = place < 0 ? make("p", { class: "note" }, run.status === "completed"
      ? `Its predictions are not on this page; they lie beside its record as predictions/${run.id}.jsonl.`
      : "It has no predictions.")
      : make("p", {}, make("button", { type: "button", class: "button", onclick: () => readRun(place) },
        "Read its predictions"));
    const parts = run.record.map((index) => runs.parts[index]);
    const body = make("div", { class: "body" }, toReader,
      ...(parts.length ? [] : [make("p", {}, "This run is planned; nothing is recorded of it.")]),
      ...parts.flatMap((part) => [make("h3", {}, part.title), partTable(part)]));
    dialog.replaceChildren(make("header", {}, make("h2", { id: "record-title" }, run.label + ": " + run.status),
      make("button", { type: "button", class: "button", onclick: () => dialog.close() }, "Close")), body);
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  }
  function readRun(place) {
    dialog.close();
    reader.focusOn(place);
    history.replaceState(null, "", "#predictions");
    byId("predictions").scrollIntoView();
  }
  function follow() {
    const hash = location.hash;
    if (hash.startsWith("#runs=")) showOnly(hash.slice(6).split(","));
    else if (hash.startsWith("#run-") && runOf.has(hash.slice(5))) openRun(runOf.get(hash.slice(5)));
  }

  // --- the plot of all runs ---

  const MARKS = [
    "M5 0A5 5 0 1 1-5 0A5 5 0 1 1 5 0Z", "M-4.5-4.5H4.5V4.5H-4.5Z", "M0-6L6 0L0 6L-6 0Z", "M0-5.5L5.5 4.5H-5.5Z",
    "M0 5.5L5.5-4.5H-5.5Z", "M-2-5.5H2V-2H5.5V2H2V5.5H-2V2H-5.5V-2H-2Z", "M-5-5L0-2L5-5L2 0L5 5L0 2L-5 5L-2 0Z",
    "M-5.5 0L4.5-5.5V5.5Z",
  ];
  const mark = (arm) => draw("path", { d: MARKS[arm % MARKS.length], class: "k" + (arm % 7) });
  const WIDTH = 760, HEIGHT = 470, LEFT = 84, RIGHT = 30, TOP = 16, BOTTOM = 62;

  function niceTicks(low, high) {
    const raw = (high - low) / 5;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw);
    const ticks = [];
    for (let at = Math.ceil(low / step); at * step <= high * (1 + 1e-12); at += 1) ticks.push(at * step);
    return ticks;
  }
  function logTicks(low, high) {
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1)
      for (const factor of [1, 2, 5]) {
        const at = Number(`${factor}e${power}`);
        if (at >= low && at <= high) ticks.push(at);
      }
    return ticks;
  }
  // A scale of values to shares of the axis, with its ticks.
  function scale(axis, values) {
    let low = Math.min(...values), high = Math.max(...values);
    const log = low > 0 && (axis.log || high / low > 30);
    if (low === high) {
      const room = low === 0 ? 1 : Math.abs(low) * 0.1;
      low -= room;
      high += room;
    } else if (log) {
      const room = (high / low) ** 0.06;
      low /= room;
      high *= room;
    } else {
      const room = (high - low) * 0.06;
      low = low >= 0 ? Math.max(low - room, 0) : low - room;
      high += room;
    }
    const different = [...new Set(values)].sort((a, b) => a - b);
    let ticks = log && different.length <= 7 ? different : log ? logTicks(low, high) : niceTicks(low, high);
    if (ticks.length < 2) ticks = niceTicks(low, high);
    const at = log ? (value) => Math.log(value / low) / Math.log(high / low) : (value) => (value - low) / (high - low);
    return { at, ticks, log };
  }
  const tickText = (value) => value !== 0 && (Math.abs(value) < 0.001 || Math.abs(value) >= 1e6)
    ? value.toExponential(1).replace(".0e", "e") : String(Number(value.toPrecision(4)));

  function plot(root) {
    const axes = runs.axes;
    const axisOf = (key) => axes.find((axis) => axis.key === key);
    const first = (keys) => keys.find((key) => axisOf(key)) ?? axes[0].key;
    const kinds = [["test", "test split"], ["validation", "trials and validation"], ["all", "all runs"]]
      .filter(([key]) => key === "all" || runs.runs.some((run) => run.split === key && Object.keys(run.values).length > 1));
    const now = { x: first(["memory", "train_seconds", "seconds"]),
      y: first(["rouge1", "train_seconds", "seconds", "energy"]), which: kinds[0][0], hidden: new Set() };
    const live = make("p", { class: "told", "aria-live": "polite" });
    const canvas = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "group" });
    const names = axes.map((axis) => [axis.key, axis.title]);
    const set = (key) => (value) => { now[key] = value; render(); };
    const [across, acrossSelect] = choice("across", names, now.x, set("x"));
    const [up, upSelect] = choice("up", names, now.y, set("y"));
    const [which, whichSelect] = choice("runs", kinds, now.which, set("which"));
    const presets = [["memory", "rouge1", "test", "Memory and score"],
      ["learning_rate", "rougeL", "validation", "Learning rate and score"],
      ["learning_rate", "validation_loss", "validation", "Learning rate and loss"],
      ["train_seconds", "memory", "test", "Time and memory"]]
      .filter(([x, y, kind]) => axisOf(x) && axisOf(y)
        && runs.runs.some((run) => run.split === kind && x in run.values && y in run.values))
      .map(([x, y, kind, title]) => make("button", { type: "button", class: "button", onclick: () => {
        Object.assign(now, { x, y, which: kind });
        acrossSelect.value = x; upSelect.value = y; whichSelect.value = kind;
        render();
      } }, title));
    const legend = make("ul", { class: "legend", "aria-label": "arms" }, ...runs.arms.map((name, arm) => {
      const button = make("button", { type: "button", "aria-pressed": "true", onclick: () => {
        if (!now.hidden.delete(arm)) now.hidden.add(arm);
        button.setAttribute("aria-pressed", String(!now.hidden.has(arm)));
        render();
      } }, draw("svg", { viewBox: "-8 -8 16 16", "aria-hidden": "true" }, mark(arm)),
      make("span", {}, ...breaking(name)));
      return make("li", {}, button);
    }));
    root.append(make("div", { class: "controls" }, across, up, which, ...presets), live,
      make("div", { class: "plot" }, canvas, legend));

    function axisParts(scaleOf, axis, vertical) {
      const length = vertical ? HEIGHT - TOP - BOTTOM : WIDTH - LEFT - RIGHT;
      const place = (value) => vertical ? HEIGHT - BOTTOM - scaleOf.at(value) * length : LEFT + scaleOf.at(value) * length;
      const parts = scaleOf.ticks.flatMap((value) => vertical
        ? [draw("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: place(value), y2: place(value) }),
          draw("text", { x: LEFT - 8, y: place(value) + 4, "text-anchor": "end" }, tickText(value))]
        : [draw("line", { class: "grid", x1: place(value), x2: place(value), y1: TOP, y2: HEIGHT - BOTTOM }),
          draw("text", { x: place(value), y: HEIGHT - BOTTOM + 20, "text-anchor": "middle" }, tickText(value))]);
      const text = axis.title + (scaleOf.log ? " (log scale)" : "");
      const middle = (TOP + HEIGHT - BOTTOM) / 2;
      parts.push(vertical
        ? draw("text", { class: "title", transform: `translate(18 ${middle}) rotate(-90)`, "text-anchor": "middle" }, text)
        : draw("text", { class: "title", x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 14, "text-anchor": "middle" }, text));
      return [parts, place];
    }
    function missing(group) {
      const without = group.filter((run) => !(now.x in run.values) || !(now.y in run.values));
      if (!without.length) return "";
      const counts = new Map();
      for (const run of without) counts.set(run.status, (counts.get(run.status) ?? 0) + 1);
      const what = [...counts].map(([status, count]) => `${count} ${status}`).join(", ");
      return ` ${counted(without.length, "run")} cannot be drawn here: ${what}.`;
    }
    function render() {
      const [xAxis, yAxis] = [axisOf(now.x), axisOf(now.y)];
      const group = runs.runs.filter((run) => (now.which === "all" || run.split === now.which) && !now.hidden.has(run.arm));
      const drawn = group.filter((run) => now.x in run.values && now.y in run.values);
      const state = `${counted(drawn.length, "run")} drawn.${missing(group)}`;
      live.textContent = state;
      canvas.replaceChildren();
      canvas.setAttribute("aria-label", `${yAxis.title} against ${xAxis.title}; ${state}`);
      if (!drawn.length) {
        canvas.append(draw("text", { x: WIDTH / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "No run has both values."));
        return;
      }
      const [acrossParts, x] = axisParts(scale(xAxis, drawn.map((run) => run.values[now.x])), xAxis, false);
      const [upParts, y] = axisParts(scale(yAxis, drawn.map((run) => run.values[now.y])), yAxis, true);
      canvas.append(...acrossParts, ...upParts,
        draw("rect", { class: "frame", x: LEFT, y: TOP, width: WIDTH - LEFT - RIGHT, height: HEIGHT - TOP - BOTTOM }));
      const points = drawn.sort((a, b) => a.values[now.x] - b.values[now.x] || a.values[now.y] - b.values[now.y])
        .map((run) => {
          const said = `${run.label}. ${xAxis.title}: ${run.texts[now.x]}; ${yAxis.title}: ${run.texts[now.y]}`;
          const tell = () => { live.textContent = said; };
          return draw("g", { class: run.kind === "baseline" ? "point hollow" : "point", role: "link", tabindex: -1,
            "aria-label": said, "data-run": run.id,
            transform: `translate(${x(run.values[now.x]).toFixed(1)} ${y(run.values[now.y]).toFixed(1)})`,
            onpointerenter: tell, onfocus: tell, onclick: () => { location.hash = "#run-" + run.id; } },
          draw("title", {}, said), mark(run.arm));
        });
      // One stop of the tab key; arrow keys go from point to point.
      points[0].setAttribute("tabindex", 0);
      points.forEach((point, index) => point.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
        if (event.key === "Enter" || event.key === " ") location.hash = "#run-" + point.dataset.run;
        else if (step) {
          const next = points[(index + step + points.length) % points.length];
          point.setAttribute("tabindex", -1);
          next.setAttribute("tabindex", 0);
          next.focus();
        } else return;
        event.preventDefault();
      }));
      canvas.append(...points);
    }
    render();
  }

  // --- the reader of predictions ---

  const signed = (value) => (value > 0 ? "+" : value < 0 ? "−" : "±") + Math.abs(value).toFixed(1);

  function makeReader(root) {
    const { metrics, systems, contrasts, dialogues } = reading;
    const scored = metrics.length > 0 && contrasts.length > 0;
    const orders = scored ? contrasts.flatMap((contrast, index) => {
      const what = contrasts.length > 1 ? `${contrast.name}: ` : "";
      return [[`${index} 1`, `${what}candidate worst first`], [`${index} -1`, `${what}candidate best first`],
        [`${index} 0`, `${what}largest difference first`]];
    }) : [];
    const now = { order: orders.length ? orders[0][0] : "", metric: scored ? contrasts[0].metric : 0, text: "",
      dialogue: null, focus: -1 };
    const list = make("ol", { class: "list", "aria-label": "dialogues" });
    const detail = make("div", { class: "detail" });
    const state = make("p", { class: "told", role: "status" });
    const search = make("input", { type: "search", oninput: () => { now.text = search.value.toLowerCase(); render(); } });
    const controls = make("div", { class: "controls" });
    if (orders.length) controls.append(choice("order", orders, now.order, (value) => { now.order = value; render(true); })[0]);
    if (orders.length) controls.append(choice("by", metrics.map((name, index) => [String(index), name]),
      String(now.metric), (value) => { now.metric = Number(value); render(true); })[0]);
    const step = (by) => () => {
      const shown = ordered();
      const at = shown.indexOf(now.dialogue) + by;
      if (shown[at]) { now.dialogue = shown[at]; render(); list.querySelector("[aria-current]").scrollIntoView({ block: "nearest" }); }
    };
    const back = make("button", { type: "button", class: "button", onclick: step(-1) }, "Previous");
    const next = make("button", { type: "button", class: "button", onclick: step(1) }, "Next");
    controls.append(make("label", {}, "text", search), back, next);
    root.append(controls, state, make("div", { class: "reader" }, list, detail));

    const contrast = () => contrasts.length ? contrasts[Number(now.order.split(" ")[0]) || 0] : null;
    function difference(dialogue, which) {
      const pair = contrast();
      if (!pair) return null;
      const [candidate, reference] = [dialogue.summaries[pair.candidate], dialogue.summaries[pair.reference]];
      return candidate && reference && candidate[which] && reference[which]
        ? candidate[which][now.metric] - reference[which][now.metric] : null;
    }
    const textOf = (dialogue) => [dialogue.id, dialogue.dialogue ?? "", ...dialogue.references,
      ...dialogue.summaries.map((summary) => summary ? summary[0] : "")].join("\n").toLowerCase();
    function ordered() {
      const found = dialogues.filter((dialogue) => !now.text || textOf(dialogue).includes(now.text));
      if (!scored) return found;
      const direction = Number(now.order.split(" ")[1]);
      const key = (dialogue) => {
        const apart = difference(dialogue, 1);
        return apart === null ? Infinity : direction === 0 ? -Math.abs(apart) : direction * apart;
      };
      return found.map((dialogue) => [key(dialogue), dialogue]).sort(([a], [b]) => a < b ? -1 : a > b ? 1 : 0)
        .map(([, dialogue]) => dialogue);
    }
    function summaryPart(dialogue, index) {
      const system = systems[index], summary = dialogue.summaries[index], pair = contrast();
      const role = pair && index === pair.candidate ? ", candidate" : pair && index === pair.reference ? ", reference" : "";
      const parts = [make("h4", {}, ...breaking(system.arm), make("span", { class: "role" }, `${role}, seed ${system.seed}`))];
      if (!summary) parts.push(make("p", { class: "note" }, "No summary of this dialogue."));
      else {
        const [text, scores, mean, remarks] = summary;
        parts.push(make("p", { class: "text", dir: "auto" }, text));
        if (remarks.length) parts.push(make("p", { class: "note" }, remarks.join("; ")));
        if (scores) {
          const head = ["", "this run", ...(mean ? [`mean of ${system.seeds} seeds`] : [])];
          parts.push(make("table", {},
            make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col", class: "number" }, name)))),
            make("tbody", {}, ...metrics.map((name, metric) => make("tr", {}, make("th", { scope: "row" }, name),
              make("td", { class: "number" }, scores[metric].toFixed(2)),
              mean ? make("td", { class: "number" }, mean[metric].toFixed(2)) : null)))));
        }
        parts.push(make("p", { class: "note" }, make("a", { href: "#run-" + system.run }, "its run")));
      }
      return make("div", { class: index === now.focus ? "summary focus" : "summary" }, ...parts);
    }
    function showDialogue(dialogue) {
      if (!dialogue) { detail.replaceChildren(make("p", {}, "No dialogue holds this text.")); return; }
      const pair = contrast();
      const first = [now.focus, ...(pair ? [pair.candidate, pair.reference] : [])].filter((index) => index >= 0);
      const order = [...new Set([...first, ...systems.keys()])];
      const apart = difference(dialogue, 1), mean = difference(dialogue, 2);
      const parts = [make("h3", {}, dialogue.id)];
      if (apart !== null) parts.push(make("p", {},
        `${metrics[now.metric]} of ${systems[pair.candidate].arm} minus ${systems[pair.reference].arm}: ${signed(apart)} points`
        + (mean === null ? "." : `; mean over seeds ${signed(mean)}.`)));
      if (dialogue.dialogue !== null) parts.push(make("h4", {}, "Dialogue"),
        make("div", { class: "dialogue", dir: "auto", tabindex: 0, role: "region", "aria-label": "dialogue" }, dialogue.dialogue),
        make("h4", {}, "References"),
        make("ol", { class: "references" }, ...dialogue.references.map((text) => make("li", { dir: "auto" }, text))));
      parts.push(make("h4", {}, "Summaries"),
        make("div", { class: "summaries" }, ...order.map((index) => summaryPart(dialogue, index))));
      detail.replaceChildren(...parts);
    }
    function render(fromTop) {
      const shown = ordered();
      if (fromTop || !shown.includes(now.dialogue)) now.dialogue = shown[0] ?? null;
      const focused = list.contains(document.activeElement);
      list.replaceChildren(...shown.map((dialogue) => {
        const apart = difference(dialogue, 1);
        return make("li", {}, make("button", { type: "button", "aria-current": dialogue === now.dialogue ? "true" : null,
          onclick: () => { now.dialogue = dialogue; render(); } },
        make("span", {}, dialogue.id), apart === null ? null : make("b", {}, signed(apart))));
      }));
      if (focused) list.querySelector("[aria-current]")?.focus();
      const at = shown.indexOf(now.dialogue);
      state.textContent = `${counted(shown.length, "dialogue")}` + (at < 0 ? "" : `, this is number ${at + 1}`);
      back.disabled = at <= 0;
      next.disabled = at < 0 || at >= shown.length - 1;
      showDialogue(now.dialogue);
    }
    render();
    return { focusOn: (place) => { now.focus = place; render(); } };
  }

  // --- start: what needs this script is shown now ---

  for (const part of document.querySelectorAll("section[hidden], nav li[hidden]")) part.hidden = false;
  if (byId("plot") && runs.axes.length) plot(byId("plot"));
  const reader = byId("reader") ? makeReader(byId("reader")) : null;
  addEventListener("hashchange", follow);
  follow();
})();
