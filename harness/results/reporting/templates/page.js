// Sorts, filters and opens what the page already shows. Without it every row stands open and nothing else is lost.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const board = JSON.parse($("leaderboard").textContent);
  const table = $("board");
  const groups = board.groups.map((group, index) => ({
    body: $(`group-${index + 1}`),
    last: group.demonstration,
    rows: group.rows.map((row) => ({ ...row, line: $(row.id), more: $(`${row.id}--more`) })),
  }));
  const rows = groups.flatMap((group) => group.rows);
  const marks = [...document.querySelectorAll(".mark")];

  // --- what a row is sorted by; null goes last whichever way
  const keys = {
    accelerators: { of: (row) => row.accelerators, up: true },
    minutes: { of: (row) => row.minutes, up: true },
    images_per_s: { of: (row) => row.images_per_s, up: false },
    each: { of: (row) => row.images_per_s_per_accelerator, up: false },
    epochs: { of: (row) => row.epochs && row.epochs[0], up: true },
    quality: { of: (row) => row.quality && row.quality[1], up: false },
    system: { of: (row) => row.system.toLowerCase(), up: true },
    global_batch: { of: (row) => row.global_batch, up: true },
  };
  let sorted = { key: "accelerators", up: true };

  function compare(a, b) {
    if (a === b) return 0;
    if (a === null || a === undefined) return 1;
    if (b === null || b === undefined) return -1;
    return (a < b ? -1 : 1) * (sorted.up ? 1 : -1);
  }

  // Rows move inside their group, unofficial ones stay behind official ones; groups go by their best row, demonstrations last.
  function sort(key, up) {
    sorted = { key, up };
    const value = keys[key].of;
    const initial = key === "accelerators";
    const rank = (row) => (row.unofficial.length ? 1 : 0);
    for (const group of groups) {
      const inside = [...group.rows];
      if (!initial) inside.sort((a, b) => rank(a) - rank(b) || compare(value(a), value(b)));
      group.best = inside.length ? value(inside[0]) : null;
      group.body.append(...inside.flatMap((row) => [row.line, row.more]));
    }
    table.append(...[...groups].sort((a, b) => a.last - b.last || compare(a.best, b.best)).map((group) => group.body), $("nothing"));
    for (const head of table.querySelectorAll("thead th[data-sort]")) {
      if (head.dataset.sort === key) head.setAttribute("aria-sort", up ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    }
    $("sort").value = key;
  }

  // --- filters
  const words = new Map(rows.map((row) => [row.id, searchable(row).toLowerCase()]));

  function searchable(row) {
    const configuration = `${row.accelerators} × ${row.accelerator} ruleset ${row.ruleset} batch ${row.global_batch} ${row.division}`;
    return `${row.line.textContent} ${row.more.querySelector(".facts").textContent} ${configuration}`;
  }

  function matches(row) {
    const origin = $("by-origin").value;
    return (
      $("find").value.toLowerCase().split(/\s+/).every((word) => words.get(row.id).includes(word)) &&
      (!$("by-family").value || row.line.dataset.family === $("by-family").value) &&
      (!$("by-ruleset").value || row.ruleset === $("by-ruleset").value) &&
      (!origin || (origin === "official" ? row.unofficial.length === 0 : row.origin === origin))
    );
  }

  function filter() {
    const shown = new Set(rows.filter(matches).map((row) => row.id));
    for (const row of rows) {
      row.line.hidden = !shown.has(row.id);
      row.more.hidden = row.line.hidden;
    }
    for (const group of groups) group.body.hidden = !group.rows.some((row) => shown.has(row.id));
    for (const mark of marks) mark.classList.toggle("away", !shown.has(mark.dataset.row));
    $("nothing").hidden = shown.size > 0 || rows.length === 0;
    $("count").textContent = `${shown.size} of ${rows.length} results`;
  }

  // --- opening a row
  function open(row, state) {
    row.more.classList.toggle("shown", state);
    row.line.querySelector(".open").setAttribute("aria-expanded", String(state));
  }

  function visit(id, move) {
    const row = rows.find((each) => each.id === id);
    if (!row) return;
    if (row.line.hidden) clear();
    open(row, true);
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (move) row.line.scrollIntoView({ block: "center", behavior: calm ? "auto" : "smooth" });
    row.line.querySelector(".open").focus({ preventScroll: true });
  }

  function clear() {
    for (const id of ["find", "by-family", "by-ruleset", "by-origin"]) $(id).value = "";
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
  $("sort").addEventListener("change", () => sort($("sort").value, keys[$("sort").value].up));
  for (const id of ["find", "by-family", "by-ruleset", "by-origin"]) $(id).addEventListener("input", filter);
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
  addEventListener("hashchange", () => visit(decodeURIComponent(location.hash.slice(1)), true));

  document.body.classList.remove("plain");
  for (const id of ["theme", "download"]) $(id).hidden = false;
  $("controls").hidden = rows.length === 0;
  theme(themes.includes(remembered()) ? remembered() : "auto");
  sort("accelerators", true);
  filter();
  if (location.hash) visit(decodeURIComponent(location.hash.slice(1)), true);
})();
