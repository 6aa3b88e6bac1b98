"use strict";
// What the page holds is text from file names and models: it is put in by textContent only, never as markup.
const page = JSON.parse(document.getElementById("page").textContent);
const fields = ["name", "score", "level", "shares", "spread", "width", "height", "second", "picture", "answers", "linked"];
const all = JSON.parse(document.getElementById("data").textContent).map((row, number) => {
  const one = { number };
  fields.forEach((field, at) => (one[field] = row[at]));
  one.search = (one.name + "\n" + one.answers.flat().join("\n")).toLowerCase();
  return one;
});
const HEIGHT = 72, BESIDE = 8, STRIP = 12;
const $ = (id) => document.getElementById(id);
const list = $("list"), rows = $("rows"), dialog = $("one");
const made = (tag, kind, ...children) => {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  element.append(...children);
  return element;
};
const number = (value) => value.toLocaleString("en");
const signed = (value) => (value > 0 ? "+" : "") + value.toFixed(3);

const picture = (one) => {
  if (!one.picture) return made("span", "none", "no picture");
  const image = made("img");
  image.src = "data:image/jpeg;base64," + one.picture;
  image.alt = "";
  return image;
};
const bar = (one) => {
  const element = made("span", "bar");
  one.shares.forEach((share, at) => {
    const part = made("i", page.levels[at]);
    part.style.width = 100 * share + "%";
    element.append(part);
  });
  element.title = one.shares.map((share, at) => `${page.levels[at]} ${share.toFixed(3)}`).join(", ");
  return element;
};

// ---- filter and sort ----
const orders = {
  "worst first": (a, b) => a.score - b.score,
  "best first": (a, b) => b.score - a.score,
  "name": (a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0),
  "least certain first": (a, b) => b.spread - a.spread,
};
if (page.pairs) {
  const gain = (one) => (one.second === null ? 0 : one.second - one.score);
  orders["second run worse first"] = (a, b) => gain(a) - gain(b);
  orders["second run better first"] = (a, b) => gain(b) - gain(a);
}
let shown = all, chosen = -1;

const select = () => {
  const words = $("words").value.toLowerCase().split(/\s+/).filter(Boolean);
  const level = $("level").value, low = $("low").valueAsNumber, high = $("high").valueAsNumber;
  shown = all.filter((one) =>
    (level === "" || one.level === Number(level)) && !(one.score < low) && !(one.score > high) &&
    words.every((word) => one.search.includes(word)));
  shown.sort(orders[$("sort").value]);
  chosen = -1;
  rows.style.height = shown.length * HEIGHT + "px";
  list.scrollTop = 0;
  $("count").textContent = `${number(shown.length)} of ${number(all.length)} images`;
  rows.replaceChildren();
  draw();
};

// ---- the list: only what is in sight is in the document ----
const row = (one, at) => {
  const about = [`${one.width} × ${one.height}`];
  if (one.second !== null) about.push(`second run ${one.second.toFixed(3)}, ${signed(one.second - one.score)}`);
  const text = made("div", "", made("p", "", one.name), made("p", "", one.answers.length ? one.answers[0][1] : about.join(", ")));
  const score = made("span", "", made("b", "", one.score.toFixed(3)), made("br"), made("small", "", page.levels[one.level]));
  const element = made("div", "row", picture(one), score, bar(one), text, made("small", "", `± ${one.spread.toFixed(2)}`));
  element.style.top = at * HEIGHT + "px";
  element.id = "row" + at;
  element.setAttribute("role", "option");
  element.setAttribute("aria-setsize", shown.length);
  element.setAttribute("aria-posinset", at + 1);
  element.setAttribute("aria-selected", at === chosen);
  element.addEventListener("click", () => { choose(at); open(one); });
  return element;
};
const draw = () => {
  const first = Math.max(0, Math.floor(list.scrollTop / HEIGHT) - BESIDE);
  const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / HEIGHT) + BESIDE);
  const there = new Set();
  for (const element of [...rows.children]) {
    const at = Number(element.id.slice(3));
    if (at < first || at >= last) element.remove(); else there.add(at);
  }
  for (let at = first; at < last; at++) if (!there.has(at)) rows.append(row(shown[at], at));
};
const choose = (at) => {
  if (!shown.length) return;
  document.getElementById("row" + chosen)?.setAttribute("aria-selected", false);
  chosen = Math.max(0, Math.min(shown.length - 1, at));
  const top = chosen * HEIGHT;
  if (top < list.scrollTop) list.scrollTop = top;
  if (top + HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + HEIGHT - list.clientHeight;
  draw();
  document.getElementById("row" + chosen)?.setAttribute("aria-selected", true);
  list.setAttribute("aria-activedescendant", "row" + chosen);
};
let waiting = false;
list.addEventListener("scroll", () => {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}, { passive: true });
addEventListener("resize", draw);

// ---- one image ----
const open = (one) => {
  const facts = made("dl");
  const fact = (name, ...value) => facts.append(made("dt", "", name), made("dd", "", ...value));
  fact("Score", `${one.score.toFixed(4)}, ${page.levels[one.level]}, spread ${one.spread.toFixed(3)}`);
  fact("Levels", bar(one), one.shares.map((share, at) => `${page.levels[at]} ${share.toFixed(3)}`).join(", "));
  fact("Size", `${one.width} × ${one.height}`);
  if (one.second !== null) fact("Second run", `${one.second.toFixed(4)}, ${signed(one.second - one.score)}`);
  for (const [question, answer] of one.answers) fact(question, answer);
  const address = page.link && one.linked && one.name.isWellFormed?.() ? page.link + one.name.split("/").map(encodeURIComponent).join("/") : "";
  if (address) {
    const link = made("a", "", "open the file");
    link.href = address;
    link.target = "_blank";
    link.rel = "noreferrer";
    fact("File", link);
  }
  dialog.lastElementChild.replaceChildren(made("h2", "", one.name), picture(one), facts);
  dialog.showModal();
};
dialog.firstElementChild.addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

// ---- above the list ----
const fill = () => {
  const { about } = page;
  $("name").textContent = page.name;
  $("about").textContent = `${number(page.scored)} images scored by ${about.model} (weights ${about.fingerprint}, ` +
    `${about.engine}, ${about.dtype}, profile ${about.profile}${about.mode ? ", " + about.mode : ""}): ${about.scope}` +
    (page.scored > all.length ? `; the worst and the best ${number(all.length)} are listed` : "");
  const top = Math.max(...page.histogram);
  page.histogram.forEach((count, at) => {
    const low = at / page.histogram.length, high = (at + 1) / page.histogram.length;
    const column = made("i"), button = made("button", "", column);
    column.style.height = 100 * count / top + "%";
    button.type = "button";
    button.title = `${low.toFixed(2)} to ${high.toFixed(2)}: ${number(count)} images`;
    button.setAttribute("aria-label", button.title);
    button.addEventListener("click", () => { $("low").value = low; $("high").value = high; select(); });
    $("histogram").append(button);
  });
  page.levels.forEach((level, at) => {
    const count = page.counts[at], length = made("i", level);
    length.style.width = 100 * count / page.scored + "%";
    const button = made("button", "", made("span", "", level), length, made("span", "", number(count)));
    button.type = "button";
    button.addEventListener("click", () => { $("level").value = at; select(); });
    $("levels").append(button);
    $("level").append(new Option(level, at));
  });
  for (const name of Object.keys(orders)) $("sort").append(new Option(name));
  for (const [id, some] of [["worst", all.slice(0, STRIP)], ["best", all.slice(-STRIP).reverse()]])
    for (const one of some) {
      const button = made("button", "", picture(one), made("span", "", one.score.toFixed(3)));
      button.type = "button";
      button.title = one.name;
      button.addEventListener("click", () => open(one));
      $(id).append(button);
    }
  if (page.pairs) {
    const { count, mean, mean_interval, better, better_interval } = page.pairs, percent = (share) => (100 * share).toFixed(1) + " %";
    const facts = $("pairs").querySelector("dl");
    const fact = (name, value) => facts.append(made("dt", "", name), made("dd", "", value));
    fact("Second run", page.against);
    fact("Images in both", number(count));
    fact("Mean difference", `${signed(mean)} (95 %: ${mean_interval.map(signed).join(" to ")})`);
    fact("Second is higher", `${percent(better)} (95 %: ${better_interval.map(percent).join(" to ")})`);
    $("pairs").hidden = false;
  }
  if (page.failures) {
    $("failed").hidden = false;
    $("failed").firstElementChild.textContent = `Without a score: ${number(page.failures)}`;
    $("failed").lastElementChild.append(...page.failed.slice(0, 1000).map(([name, why]) => made("li", "", `${name}: ${why}`)));
  }
};

// ---- keyboard ----
const theme = () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches, root = document.documentElement;
  root.dataset.theme = (root.dataset.theme ?? (dark ? "dark" : "light")) === "dark" ? "light" : "dark";
};
$("theme").addEventListener("click", theme);
const steps = () => Math.max(1, Math.floor(list.clientHeight / HEIGHT) - 1);
const keys = {
  "/": () => $("words").focus(),
  "d": theme,
  "s": () => { $("sort").selectedIndex = ($("sort").selectedIndex + 1) % $("sort").options.length; select(); },
};
const listKeys = {
  ArrowDown: () => choose(chosen + 1), ArrowUp: () => choose(chosen - 1), Home: () => choose(0),
  End: () => choose(shown.length - 1), PageDown: () => choose(chosen + steps()), PageUp: () => choose(chosen - steps()),
  Enter: () => { if (chosen >= 0) open(shown[chosen]); },
};
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || dialog.open) return;
  const typing = event.target.closest("input, select");
  if (typing && event.key === "Escape") list.focus();
  if (typing && event.target.id === "words" && event.key === "ArrowDown") { event.preventDefault(); list.focus(); choose(0); return; }
  const act = typing ? undefined : keys[event.key] ?? (event.target.closest("button, a, summary") ? undefined : listKeys[event.key]);
  if (!act) return;
  event.preventDefault();
  act();
});
$("controls").addEventListener("input", select);
$("controls").addEventListener("submit", (event) => event.preventDefault());
$("controls").addEventListener("reset", () => setTimeout(select));
fill();
select();
