"use strict";
// Ids, bytes and rows of W of the chunk that is pointed at, focused or tapped. Text from the data
// enters the page as text nodes only.

const SIDES = ["student", "teacher"];
const MAX_TOKENS = 8; // of a side; a chunk can have hundreds
const data = JSON.parse(document.getElementById("tokens").textContent);
const flow = document.getElementById("flow");
const tip = document.getElementById("tip");
let shown = null; // the column that the tip is about

function element(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}

const cell = (column, side) => column.querySelectorAll("p")[2 * side];
const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

// Where the tokens of a column begin in those of its side.
function firstToken(column, side) {
  let index = Number(column.parentElement.dataset[SIDES[side]]);
  for (let other = column.parentElement.firstElementChild; other !== column; ) {
    index += cell(other, side).childElementCount;
    other = other.nextElementSibling;
  }
  return index;
}

function pairs(row) {
  const content = element("td");
  content.className = "row";
  for (const [piece, weight] of row) {
    content.append(element("bdi", piece), element("span", ` ${weight.toFixed(4)} `));
  }
  if (!row.length) content.append("empty");
  return content;
}

function tokenRows(column, side) {
  const rows = [];
  const first = firstToken(column, side);
  const tokens = [...cell(column, side).children];
  tokens.slice(0, MAX_TOKENS).forEach((token, index) => {
    const [id, bytes, row] = data[side].tokens[data[side].order[first + index]];
    const hex = bytes ? bytes.match(/../g).join(" ") : "control token";
    const heading = element("th", SIDES[side]);
    const cells = [token.cloneNode(true), `id ${id}`, element("code", hex)];
    rows.push(element("tr", heading, ...cells.map((content) => element("td", content))));
    if (row) {
      const content = pairs(row);
      content.colSpan = 3;
      rows.push(element("tr", element("th", "row of W"), content));
    }
  });
  if (tokens.length > MAX_TOKENS) {
    const more = element("td", `and ${tokens.length - MAX_TOKENS} more`);
    more.colSpan = 3;
    rows.push(element("tr", element("th", SIDES[side]), more));
  }
  return rows;
}

function heading(column) {
  if (column.classList.contains("gap")) return "gap";
  if (column.classList.contains("bare")) return "text that neither side spells";
  const [student, teacher] = [0, 1].map((side) => cell(column, side).childElementCount);
  const kind = column.classList.contains("unscored") ? "chunk, not scored" : "chunk";
  return `${kind}: ${plural(student, "student token")}, ${plural(teacher, "teacher token")}`;
}

function place(column) {
  const box = column.getBoundingClientRect();
  const left = Math.min(box.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
  const below = box.bottom + 6;
  const fits = below + tip.offsetHeight <= innerHeight;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${fits ? below : Math.max(8, box.top - tip.offsetHeight - 6)}px`;
}

function hide() {
  if (!shown) return;
  shown.classList.remove("on");
  shown.removeAttribute("aria-describedby");
  shown = null;
  tip.hidden = true;
}

function show(column) {
  if (column === shown) return;
  hide();
  shown = column;
  column.classList.add("on");
  column.setAttribute("aria-describedby", "tip");
  const rows = [0, 1].flatMap((side) => tokenRows(column, side));
  tip.replaceChildren(element("strong", heading(column)), element("table", ...rows));
  tip.hidden = false;
  place(column);
}

// Tab reaches one column; the arrow keys move on from there.
function focus(column) {
  flow.querySelector("[tabindex='0']")?.setAttribute("tabindex", "-1");
  column.tabIndex = 0;
  column.focus();
}

function neighbour(column, next, end) {
  if (column[next]) return column[next];
  let line = column.parentElement[next];
  while (line && line.tagName !== "OL") line = line[next]; // headings stand between texts
  return line?.[end];
}

const KEYS = {
  ArrowRight: (column) => neighbour(column, "nextElementSibling", "firstElementChild"),
  ArrowLeft: (column) => neighbour(column, "previousElementSibling", "lastElementChild"),
  Home: () => flow.querySelector("li"),
  End: () => flow.lastElementChild.lastElementChild,
};

const columnOf = (event) => event.target.closest("#flow li");

flow.addEventListener("pointerover", (event) => {
  const column = columnOf(event);
  if (column && event.pointerType === "mouse") show(column);
});
flow.addEventListener("pointerleave", (event) => {
  const focused = document.activeElement.closest("#flow li");
  if (event.pointerType !== "mouse") return;
  if (focused) show(focused);
  else if (event.relatedTarget !== tip) hide();
});
flow.addEventListener("click", (event) => {
  const column = columnOf(event);
  if (column) focus(column);
});
flow.addEventListener("focusin", (event) => show(columnOf(event)));
flow.addEventListener("focusout", hide);
flow.addEventListener("keydown", (event) => {
  const column = columnOf(event);
  const target = KEYS[event.key]?.(column);
  if (target) focus(target);
  if (event.key in KEYS) event.preventDefault();
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") hide();
});
addEventListener("scroll", () => shown && place(shown), { passive: true });

document.getElementById("hint").hidden = false;
const first = flow.querySelector("li");
if (first) first.tabIndex = 0;
