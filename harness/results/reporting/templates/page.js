// Sorts, filters and opens what the page already shows. Without it every row stands open and nothing else is lost.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const board = JSON.parse($("leaderboard").textContent);
  const table = $("board");
  const rows = board.groups
    .flatMap((group) => group.rows.map((row) => ({ ...row, last: group.demonstration, comparable: group })))
    .map((row) => ({ ...row, line: $(`row-${row.id}`), more: $(`row-${row.id}--more`) }));
  const byId = new Map(rows.map((row) => [row.id, row]));
  const ofLine = new Map(rows.map((row) => [row.line, row]));
  const sections = [...table.querySelectorAll("tbody.group")].map((body) => ({
    body,
    rows: [...body.querySelectorAll("tr.row")].map((line) => ofLine.get(line)),
  }));
  const marks = [...document.querySelectorAll(".mark")];

  // --- what a row is sorted by; null goes last whichever way
  const keys = {
    accelerators: { of: (row) => row.accelerators, up: true },
    minutes: { of: (row) => row.minutes, up: true },
    images_per_s: { of: (row) => row.images_per_s, up: false },
    each: { of: (row) => row.images_per_s_per_accelerator, up: false },
    epochs: { of: (row) => row.epochs && row.epochs[0], up: true },
    quality: { of: (row) => row.quality && (row.lower_is_better ? -row.quality[0] : row.quality[1]), up: false },
    system: { of: (row) => row.system.toLowerCase(), up: true },
    global_batch: { of: (row) => row.global_batch, up: true },
    date: { of: (row) => row.date, up: false },
    driver: { of: (row) => row.driver, up: false },
  };
  let sorted = { key: "", up: true };

  const inWords = new Intl.Collator("en", { numeric: true }); // versions by their numbers: 580.95 before 580.105

  function compare(a, b) {
    if (a === b) return 0;
    if (a === null || a === undefined) return 1;
    if (b === null || b === undefined) return -1;
    const order = typeof a === "string" ? inWords.compare(a, b) : a - b;
    return order * (sorted.up ? 1 : -1);
  }

  const rank = (row) => (row.unofficial.length ? 1 : 0);
  const better = (a, b) => a.last - b.last || rank(a) - rank(b) || compare(keys[sorted.key].of(a), keys[sorted.key].of(b));
  let made = []; // bodies that this script made, in place of the page's sections

  function body(heading, members) {
    const element = document.createElement("tbody");
    element.className = "group";
    if (heading) {
      const head = element.insertRow();
      head.className = "head";
      const cell = document.createElement("th");
      cell.colSpan = table.tHead.rows[0].cells.length;
      cell.scope = "rowgroup";
      const what = document.createElement("span");
      what.className = "what";
      what.textContent = heading;
      cell.append(what);
      head.append(cell);
    }
    element.append(...members.flatMap((row) => [row.line, row.more]));
    return { body: element, rows: members };
  }

  // By round as the page has it; sorted, one list; grouped, the rows that can be compared together, groups by their best.
  function arrange() {
    for (const each of made) each.body.remove();
    made = [];
    if ($("group").value) {
      const groups = board.groups.map((group) => {
        const members = rows.filter((row) => row.comparable === group);
        if (sorted.key) members.sort(better);
        const batch = group.global_batch === null ? "not stated" : group.global_batch;
        const count = group.accelerators === null ? "?" : group.accelerators;
        return body(`${count} × ${group.accelerator}, ${group.benchmark} ${group.ruleset}, global batch ${batch}`, members);
      });
      if (sorted.key) groups.sort((a, b) => better(a.rows[0], b.rows[0]));
      made = groups;
    } else if (sorted.key) {
      made = [body("", [...rows].sort(better))];
    } else {
      for (const each of sections) each.body.append(...each.rows.flatMap((row) => [row.line, row.more]));
    }
    for (const each of sections) each.body.hidden = made.length > 0;
    table.append(...made.map((each) => each.body), $("nothing"));
    filter();
  }

  function sort(key, up) {
    sorted = { key, up };
    for (const head of table.querySelectorAll("thead th[data-sort]")) {
      if (head.dataset.sort === key) head.setAttribute("aria-sort", up ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    }
    $("sort").value = key;
    arrange();
  }

  // --- filters
  const words = new Map(rows.map((row) => [row.id, searchable(row).toLowerCase()]));

  function searchable(row) {
    const configuration = `${row.accelerators} × ${row.accelerator} ruleset ${row.ruleset} batch ${row.global_batch} ${row.division}`;
    return `${row.line.textContent} ${row.more.querySelector(".facts").textContent} ${configuration}`;
  }

  const filters = ["find", "by-task", "by-family", "by-ruleset", "by-submitter", "by-origin"];

  function matches(row) {
    const origin = $("by-origin").value;
    return (
      $("find").value.toLowerCase().split(/\s+/).every((word) => words.get(row.id).includes(word)) &&
      (!$("by-task").value || (row.task || row.benchmark) === $("by-task").value) &&
      (!$("by-family").value || row.line.dataset.family === $("by-family").value) &&
      (!$("by-ruleset").value || row.ruleset === $("by-ruleset").value) &&
      (!$("by-submitter").value || row.submitter === $("by-submitter").value) &&
      (!origin || (origin === "official" ? row.unofficial.length === 0 : row.origin === origin))
    );
  }

  function filter() {
    const shown = new Set(rows.filter(matches).map((row) => row.id));
    const asked = filters.some((id) => $(id).value);
    for (const row of rows) {
      row.line.hidden = !shown.has(row.id);
      row.more.hidden = row.line.hidden;
    }
    for (const each of made.length ? made : sections) each.body.hidden = !each.rows.some((row) => shown.has(row.id));
    for (const each of sections) each.body.classList.toggle("folded", folded.has(each.body.id) && !asked);
    for (const mark of marks) mark.classList.toggle("away", !shown.has(mark.dataset.row));
    $("nothing").hidden = shown.size > 0 || rows.length === 0;
    const away = asked || made.length ? 0 : sections.filter((each) => folded.has(each.body.id)).flatMap((each) => each.rows).length;
    $("count").textContent = `${shown.size} of ${rows.length} results${away ? `, ${away} of them folded away` : ""}`;
  }

  // --- history begins folded; a filter, a sort or a link looks into it
  const folded = new Set();

  function fold(section, state) {
    if (state) folded.add(section.body.id);
    else folded.delete(section.body.id);
    const button = section.body.querySelector(".fold");
    button.setAttribute("aria-expanded", String(!state));
    button.textContent = state ? "show" : "hide";
    button.setAttribute("aria-label", `${button.textContent} ${section.body.querySelector(".what").textContent}`);
  }

  // --- two rows side by side
  function beside() {
    const picked = [...document.querySelectorAll("input.beside:checked")].map((box) => byId.get(box.value));
    $("beside").hidden = picked.length < 2;
    for (const box of document.querySelectorAll("input.beside")) box.disabled = picked.length >= 2 && !box.checked;
    const list = $("beside").querySelector("table");
    list.replaceChildren();
    if (picked.length < 2) return;
    const facts = [
      ["system", (row) => row.system],
      ["submitter", (row) => row.submitter],
      ["accelerators", (row) => `${row.accelerators ?? "?"} × ${row.accelerator}`],
      ["global batch", (row) => row.global_batch],
      ["minutes", (row) => row.minutes],
      ["images/s", (row) => row.images_per_s],
      ["images/s per accelerator", (row) => row.images_per_s_per_accelerator],
      ["epochs", (row) => row.epochs && row.epochs.join(" to ")],
      [picked[0].metric, (row) => row.quality && row.quality.map((each) => each.toFixed(4)).join(" to ")],
      ["ruleset", (row) => row.ruleset],
      ["division", (row) => row.division],
      ["framework", (row) => row.framework],
      ["precision", (row) => row.precision],
      ["driver", (row) => row.driver],
      ["unofficial", (row) => row.unofficial.join("; ")],
    ];
    for (const [name, of] of facts) {
      const [one, other] = picked.map(of);
      if (!one && !other) continue;
      const line = list.insertRow();
      const head = document.createElement("th");
      head.scope = "row";
      head.textContent = name;
      line.append(head);
      for (const value of [one, other]) {
        const figure = typeof value === "number" ? value.toLocaleString("en", { maximumSignificantDigits: 6 }) : value;
        line.insertCell().textContent = figure || "–";
      }
      const both = typeof one === "number" && typeof other === "number" && one > 0;
      line.insertCell().textContent = both ? `second / first ${(other / one).toFixed(3)}` : "";
    }
  }

  // --- opening a row
  function open(row, state) {
    row.more.classList.toggle("shown", state);
    row.line.querySelector(".open").setAttribute("aria-expanded", String(state));
  }

  function visit(id, move) {
    const row = byId.get(id);
    if (!row) return;
    if (row.line.hidden) clear();
    const section = sections.find((each) => each.rows.includes(row));
    if (folded.has(section.body.id)) {
      fold(section, false);
      filter();
    }
    open(row, true);
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (move) row.line.scrollIntoView({ block: "center", behavior: calm ? "auto" : "smooth" });
    row.line.querySelector(".open").focus({ preventScroll: true });
  }

  function clear() {
    for (const id of filters) $(id).value = "";
    filter();
  }

  // --- theme: as the system, light, dark
  const themes = ["auto", "light", "dark"];
  function theme(name) {
    if (name === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    $("theme").textContent = `Theme: ${name}`;
    $("theme").setAttribute("aria-label", `Theme: ${name === "auto" ? "as the system" : name}`);
  }
  function remembered() {
    try {
      return localStorage.getItem("leaderboard-theme");
    } catch {
      return null; // a page from disk may have no storage
    }
  }
  function remember(name) {
    try {
      localStorage.setItem("leaderboard-theme", name);
    } catch {
      // then it lasts as long as the page
    }
  }

  // --- hooks
  for (const head of table.querySelectorAll("thead th[data-sort]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const key = head.dataset.sort;
      sort(key, sorted.key === key ? !sorted.up : keys[key].up);
    });
  }
  $("sort").addEventListener("change", () => sort($("sort").value, $("sort").value ? keys[$("sort").value].up : true));
  $("group").addEventListener("change", arrange);
  for (const section of sections) {
    const button = section.body.querySelector(".fold");
    button.hidden = false;
    fold(section, section.body.dataset.old === "yes");
    button.addEventListener("click", () => {
      fold(section, !folded.has(section.body.id));
      filter();
    });
  }
  for (const box of document.querySelectorAll("input.beside")) {
    box.parentElement.hidden = false;
    box.addEventListener("change", beside);
  }
  $("apart").addEventListener("click", () => {
    for (const box of document.querySelectorAll("input.beside:checked")) box.checked = false;
    beside();
  });
  for (const id of filters) $(id).addEventListener("input", filter);
  $("clear").addEventListener("click", clear);
  for (const row of rows) {
    const button = row.line.querySelector(".open");
    button.addEventListener("click", () => open(row, button.getAttribute("aria-expanded") !== "true"));
  }
  const tip = $("tip");
  for (const mark of marks) {
    const title = mark.querySelector("title");
    const label = title.textContent;
    title.remove(); // the tip takes its place; two would show
    mark.addEventListener("click", () => visit(mark.dataset.row, true));
    mark.addEventListener("pointerenter", (event) => {
      tip.textContent = label;
      tip.hidden = false;
      const box = tip.getBoundingClientRect();
      tip.style.left = `${Math.max(8, Math.min(event.clientX + 12, innerWidth - box.width - 8))}px`;
      tip.style.top = `${Math.max(8, event.clientY - box.height - 12)}px`;
    });
    mark.addEventListener("pointerleave", () => {
      tip.hidden = true;
    });
  }
  $("theme").addEventListener("click", () => {
    const next = themes[(themes.indexOf(document.documentElement.dataset.theme || "auto") + 1) % themes.length];
    remember(next);
    theme(next);
  });
  $("download").addEventListener("click", () => {
    const address = URL.createObjectURL(new Blob([JSON.stringify(board, null, 1)], { type: "application/json" }));
    $("download").href = address;
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  });
  $("csv").addEventListener("click", () => {
    const columns = ["rank", "rank_of", "size", "benchmark", "ruleset", "date", "division", "status", "submitter", "system", "platform"];
    columns.push("accelerator", "accelerators", "nodes", "global_batch", "framework", "precision", "driver", "minutes", "images_per_s");
    columns.push("images_per_s_per_accelerator", "epochs", "quality", "origin", "unofficial", "id");
    const cell = (value) => {
      const said = Array.isArray(value) ? value.join("; ") : `${value ?? ""}`;
      const text = [value].flat().some((each) => typeof each === "string");
      const plain = text && /^[=+\-@\t\r]/.test(said) ? `'${said}` : said; // no formula for a spreadsheet
      return /[",\n\r]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
    };
    const there = [...table.querySelectorAll("tr.row")].filter((line) => !line.hidden && !line.closest("tbody.folded"));
    const shown = there.map((line) => ofLine.get(line));
    const lines = [columns, ...shown.map((row) => columns.map((name) => row[name]))].map((line) => line.map(cell).join(","));
    const address = URL.createObjectURL(new Blob([`${lines.join("\r\n")}\r\n`], { type: "text/csv" }));
    $("csv").href = address;
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  });
  const linked = () => location.hash.slice(1).replace(/^row-/, ""); // links to older pages lack the row-
  addEventListener("hashchange", () => visit(linked(), true));

  document.body.classList.remove("plain");
  for (const id of ["theme", "download", "csv"]) $(id).hidden = false;
  $("controls").hidden = rows.length === 0;
  theme(themes.includes(remembered()) ? remembered() : "auto");
  sort("", true);
  if (location.hash) visit(linked(), true);
})();
