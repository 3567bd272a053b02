// Search, filter and sort of the tiles. The state is kept in the address, so that "back" from a card finds it again.
const list = document.getElementById("units");
const tiles = [...list.children];
const fields = ["search", "verdict", "sort"].map((id) => document.getElementById(id));
const [search, verdict, sort] = fields;

function number(tile, key) {
  const value = Number.parseFloat(tile.dataset[key]);
  return Number.isNaN(value) ? Number.NEGATIVE_INFINITY : value;
}

function show() {
  const words = search.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (tile) =>
    words.every((word) => (/^\d+$/.test(word) ? tile.dataset.unit === word : tile.dataset.text.includes(word))) &&
    (!verdict.value || tile.dataset.verdict === verdict.value);
  const key = sort.value;
  const order = (a, b) =>
    (key === "unit" ? 0 : number(b, key) - number(a, key) || 0) || number(a, "unit") - number(b, "unit");
  for (const tile of [...tiles].sort(order)) {
    tile.hidden = !fits(tile);
    list.append(tile);
  }
  const count = tiles.filter((tile) => !tile.hidden).length;
  document.getElementById("count").textContent = `${count} of ${tiles.length} units`;
  document.getElementById("nothing").hidden = count > 0;
  const state = new URLSearchParams(fields.filter((field) => field.value).map((field) => [field.id, field.value]));
  history.replaceState(null, "", `#${state}`);
}

function restore() {
  const state = new URLSearchParams(location.hash.slice(1));
  for (const field of fields) if (state.has(field.id)) field.value = state.get(field.id);
  show();
}

// Tiles to the left and right, and the nearest in the rows above and below.
function step(key) {
  const links = [...list.querySelectorAll("li:not([hidden]) a")];
  const at = links.indexOf(document.activeElement);
  if (at < 0) return false;
  const columns = getComputedStyle(list).gridTemplateColumns.split(" ").length;
  const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[key];
  const target = by && links[at + by];
  if (target) target.focus();
  return Boolean(target);
}

for (const field of fields) field.addEventListener("input", show);
document.getElementById("clear").addEventListener("click", () => {
  search.value = verdict.value = "";
  show();
  search.focus();
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && document.activeElement !== search) {
    event.preventDefault();
    search.focus();
  } else if (event.key.startsWith("Arrow") && step(event.key)) event.preventDefault();
});
restore();
