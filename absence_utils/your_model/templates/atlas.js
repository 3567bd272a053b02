// Search, filter and order the tiles; what was chosen lasts as long as the browser's tab.
const tiles = [...document.querySelectorAll(".tile")], fields = ["find", "decision", "order"].map(id => document.getElementById(id));
const key = "atlas " + location.pathname, byOrder = {"": [...tiles]};
const number = (tile, which) => which === "unit" ? -tile.dataset.unit : +tile.dataset.effects.split(" ")[which];
const [find, decision, order] = fields;

function update() {
  const words = find.value.trim().toLowerCase(), wanted = decision.value.toLowerCase();
  let count = 0;
  for (const tile of tiles) {
    const named = !words || (/^\d+$/.test(words) ? tile.dataset.unit === words : tile.dataset.words.includes(words));
    const fits = named && tile.dataset.words.includes(wanted);
    tile.hidden = !fits;
    document.getElementById("point-" + tile.dataset.unit)?.classList.toggle("out", !fits);
    count += fits;
  }
  document.getElementById("count").textContent = `${count} of ${tiles.length}`;
  document.getElementById("nothing").hidden = count > 0;
  try { sessionStorage.setItem(key, JSON.stringify(fields.map(it => it.value))); } catch { }
}

function arrange() {
  const which = order.value;
  byOrder[which] ??= [...tiles].sort((a, b) => number(b, which) - number(a, which));
  document.querySelector(".tiles").append(...byOrder[which]);
}

try { JSON.parse(sessionStorage.getItem(key) ?? "[]").forEach((value, at) => { fields[at].value = value; }); } catch { }
if (order.value) arrange();
update();
find.addEventListener("input", update);
decision.addEventListener("change", update);
order.addEventListener("change", () => { arrange(); update(); });
document.getElementById("tools").addEventListener("submit", event => event.preventDefault());
document.getElementById("all").addEventListener("toggle", () => window.dispatchEvent(new Event("resize")));
