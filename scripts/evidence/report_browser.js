/* The list of cases with its filters, and the case that is shown. Texts of the data go in as text, never as HTML. */
const FACETS = [
  ["view", "View"], ["laterality", "Side"], ["density", "Density"], ["label", "Label"],
  ["lesion_kind", "Lesion kind"], ["lesion_size", "Lesion size"], ["fold", "Fold"],
];
const NO_FIGURE = "\u2013";

class CaseBrowser {
  constructor(root) {
    this.root = root;
    this.data = JSON.parse(root.querySelector(".cases-data").textContent);
    this.cases = this.data.cases.map((one, place) => ({ ...one, place }));
    this.metrics = Object.fromEntries(this.data.metrics.map((one) => [one.name, one]));
    this.stage = new Stage(root, this.data);
    this.arm = this.data.first;
    this.order = this.data.order;
    this.reverse = false;
    this.current = null;
    this.controls();
    this.list();
  }

  part(name) {
    return this.root.querySelector(`[data-part="${name}"]`);
  }

  /* Filters and switches */
  controls() {
    const { arms, metrics } = this.data;
    this.part("arm").parentElement.hidden = arms.length < 2;
    fill(this.part("arm"), arms.map((arm) => [arm.name, arm.title]), this.arm);
    fill(this.part("order"), [["", "case"], ...metrics.map((one) => [one.name, one.label])], this.order);
    this.part("arm").addEventListener("change", (event) => { this.arm = event.target.value; this.list(); });
    this.part("order").addEventListener("change", (event) => { this.order = event.target.value; this.list(); });
    this.part("search").addEventListener("input", () => this.list());
    this.part("reverse").addEventListener("click", () => { this.reverse = !this.reverse; this.list(); });
    this.part("clear").addEventListener("click", () => this.clear());
    this.part("previous").addEventListener("click", () => this.step(-1));
    this.part("next").addEventListener("click", () => this.step(1));
    this.root.addEventListener("keydown", (event) => this.key(event));
    this.facets = FACETS.filter(([name]) => new Set(this.cases.map((one) => one[name])).size > 1);
    this.facets.forEach(([name, title]) => this.facet(name, title, distinct(this.cases, name)));
    if (new Set(this.cases.map((one) => one.lesion)).size > 1) {
      this.facet("lesion", "Lesion", [["true", "with"], ["false", "without"]]);
    }
    this.switches();
  }

  facet(name, title, options) {
    const label = document.createElement("label");
    const select = document.createElement("select");
    label.append(title, select);
    select.dataset.facet = name;
    fill(select, [["", "all"], ...options.map(([value, text]) => [`=${value}`, text])], "");
    select.addEventListener("change", () => this.list());
    this.part("facets").append(label);
  }

  clear() {
    this.part("search").value = "";
    this.root.querySelectorAll("[data-facet]").forEach((select) => { select.value = ""; });
    this.list();
  }

  switches() {
    this.toggle("heat", (on) => { this.part("legend").hidden = !on; this.stage.setHeat(on); });
    this.toggle("outline", (on) => this.stage.setOutline(on));
    this.toggle("side", (on) => this.stage.setView(on ? "side" : "swipe"));
    const shades = Array.from({ length: 17 }, (_, i) => this.data.colours.slice(48 * i, 48 * i + 3));
    this.part("scale").style.background = `linear-gradient(90deg, ${shades.map((rgb) => `rgb(${rgb})`).join(", ")})`;
    const bounds = ["low", "high"].map((name) => this.part(name));
    bounds.forEach((bound) => bound.addEventListener("input", () => {
      const [low, high] = bounds.map((one) => Number(one.value));
      this.stage.setWindow([Math.min(low, high - 1), high]);
      this.sayWindow();
    }));
    this.part("auto").addEventListener("click", () => { this.stage.setWindow(null); this.sayWindow(); });
  }

  toggle(name, then) {
    const button = this.part(name);
    button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(on));
      then(on);
    });
  }

  sayWindow() {
    const [low, high] = this.stage.window;
    this.part("low").value = low;
    this.part("high").value = high;
    const words = [low, high].map((value) => (value / 255).toFixed(2)).join(" to ");
    this.part("window").textContent = `${words}${this.stage.chosen ? "" : " (from the real DES)"}`;
    this.part("auto").setAttribute("aria-pressed", String(!this.stage.chosen));
  }

  key(event) {
    const elsewhere = event.target.closest("input, select, summary, [role=slider]");
    const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (elsewhere || !by || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    this.step(by);
    if (event.target.closest("[data-part=list]")) this.row()?.querySelector("button").focus();
  }

  /* The list */
  value(one, name = this.order, arm = this.arm) {
    return (one.metrics[arm] || {})[name] ?? null;
  }

  badness(one) {
    const value = this.value(one);
    const { good } = this.metrics[this.order] || {};
    if (value === null) return null;
    return { high: -value, low: value, 1: Math.abs(value - 1), 0: Math.abs(value) }[good] ?? value;
  }

  fits(one) {
    const words = this.part("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = [one.name, one.source, one.label, one.lesion_kind, one.density].join(" ").toLowerCase();
    const chosen = [...this.root.querySelectorAll("[data-facet]")].filter((select) => select.value);
    return this.arm in one.virtual && words.every((word) => text.includes(word))
      && chosen.every((select) => `=${one[select.dataset.facet]}` === select.value);
  }

  sorted() {
    const sign = this.reverse ? -1 : 1;
    const found = this.cases.filter((one) => this.fits(one)).map((one) => [this.order ? this.badness(one) : 0, one]);
    found.sort(([a, one], [b, other]) => {
      if ((a === null) !== (b === null)) return a === null ? 1 : -1; // what has no figure comes last
      const by = this.order ? b - a : one.name.localeCompare(other.name, "en", { numeric: true });
      return sign * by || one.place - other.place;
    });
    return found.map(([, one]) => one);
  }

  list() {
    this.found = this.sorted();
    const { good, label = "" } = this.metrics[this.order] || {};
    const [first, last] = !this.order ? ["A to Z", "Z to A"] : good ? ["worst first", "best first"] : ["high first", "low first"];
    this.part("reverse").textContent = this.reverse ? last : first;
    this.part("figure").textContent = label;
    this.part("count").textContent = `${this.found.length} of ${this.cases.length} cases`;
    this.part("list").replaceChildren(...this.found.map((one) => this.line(one)));
    this.select(this.found.includes(this.current) ? this.current : this.found[0] || null);
  }

  line(one) {
    const row = document.createElement("tr");
    const head = document.createElement("th");
    const button = document.createElement("button");
    head.scope = "row";
    button.type = "button";
    button.textContent = one.name;
    head.append(button);
    row.append(head, cell(one.fold), cell(one.lesion ? "yes" : "no"), cell(this.text(this.value(one), this.order)));
    row.dataset.place = one.place;
    row.addEventListener("click", () => this.select(one));
    return row;
  }

  text(value, name) {
    return value === null ? NO_FIGURE : value.toFixed(this.metrics[name].digits).replace("-", "\u2212");
  }

  row() {
    return this.current && this.part("list").querySelector(`[data-place="${this.current.place}"]`);
  }

  step(by) {
    const place = this.found.indexOf(this.current) + by;
    if (place >= 0 && place < this.found.length) this.select(this.found[place]);
  }

  /* The case */
  async select(one) {
    this.current = one;
    const place = this.found.indexOf(one);
    this.part("list").querySelectorAll("tr").forEach((row) => {
      const now = one !== null && Number(row.dataset.place) === one.place;
      row.toggleAttribute("aria-current", now);
      if (now) row.setAttribute("aria-current", "true");
      row.querySelector("button").tabIndex = now ? 0 : -1;
    });
    this.part("previous").disabled = place <= 0;
    this.part("next").disabled = place < 0 || place === this.found.length - 1;
    this.part("case").hidden = one === null;
    this.part("none").hidden = one !== null;
    if (one === null) return;
    this.reveal();
    this.part("title").textContent = one.name;
    this.part("place").textContent = `${place + 1} of ${this.found.length}`;
    const titles = Object.fromEntries(this.data.arms.map((arm) => [arm.name, arm.title]));
    const virtual = this.data.arms.length > 1 ? `virtual, ${titles[this.arm]}` : "virtual DES";
    this.root.querySelectorAll(".virtual-title").forEach((title) => { title.textContent = virtual; });
    this.facts(one);
    this.figures(one);
    await this.stage.show(one, this.arm);
    this.sayWindow();
  }

  /* Bring the row into view inside the list, without moving the page. */
  reveal() {
    const row = this.row();
    const box = row.closest(".scroll-list");
    const [top, bottom] = [row.offsetTop - 34, row.offsetTop + row.offsetHeight]; // below the head, which stays
    if (top < box.scrollTop) box.scrollTop = top;
    else if (bottom > box.scrollTop + box.clientHeight) box.scrollTop = bottom - box.clientHeight;
  }

  facts(one) {
    const shown = [...FACETS, ["source", "File"]].filter(([name]) => one[name]);
    shown.push(["lesion", "Lesion"]);
    this.part("facts").replaceChildren(...shown.flatMap(([name, title]) => {
      const [key, value] = [document.createElement("dt"), document.createElement("dd")];
      key.textContent = title;
      value.textContent = name === "lesion" ? (one.lesion ? "outlined" : "none drawn") : one[name];
      return [key, value];
    }));
  }

  figures(one) {
    const columns = [...this.data.arms, ...this.data.references].filter((column) => one.metrics[column.name]);
    const head = document.createElement("tr");
    head.append(heading("this case", "col"), ...columns.map((column) => {
      const title = heading(column.title, "col");
      title.classList.toggle("chosen", column.name === this.arm);
      return title;
    }));
    const known = this.data.metrics.filter((metric) => columns.some((column) => metric.name in one.metrics[column.name]));
    const rows = known.map((metric) => {
      const row = document.createElement("tr");
      row.append(heading(metric.label, "row"), ...columns.map((column) => {
        const figure = cell(this.text(this.value(one, metric.name, column.name), metric.name));
        figure.classList.toggle("chosen", column.name === this.arm);
        return figure;
      }));
      return row;
    });
    this.part("heads").replaceChildren(head);
    this.part("figures").replaceChildren(...rows);
  }
}

function cell(text) {
  const made = document.createElement("td");
  made.textContent = text;
  return made;
}

function heading(text, scope) {
  const made = document.createElement("th");
  made.scope = scope;
  made.textContent = text;
  return made;
}

function fill(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value, false, value === chosen)));
}

function distinct(cases, name) {
  const values = [...new Set(cases.map((one) => one[name]))];
  values.sort((a, b) => (a === "") - (b === "") || a.localeCompare(b, "en", { numeric: true }));
  return values.map((value) => [value, value || "not given"]);
}

document.querySelectorAll(".browser").forEach((root) => {
  root.previousElementSibling.hidden = true; // that scripts are needed
  root.hidden = false;
  new CaseBrowser(root);
});
