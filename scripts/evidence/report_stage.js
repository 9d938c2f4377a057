"use strict";

/* The pictures of one case: LE, real DES and virtual DES in one frame with two dividers, or side by side. */
class Stage {
  constructor(root, data) {
    this.frame = root.querySelector(".frame");
    this.data = data;
    this.layers = Object.fromEntries([...this.frame.querySelectorAll(".layer")].map((one) => [one.dataset.layer, one]));
    this.sliders = [...this.frame.querySelectorAll("[role=slider]")];
    this.places = [34, 67];
    this.moved = false; // until a divider is moved, both follow the breast
    this.greys = {};
    this.own = [0, 255]; // window of the case
    this.chosen = null; // window chosen by hand
    this.turn = 0;
    this.sliders.forEach((slider, index) => this.listen(slider, index));
    this.frame.addEventListener("pointerdown", (event) => this.press(event));
    this.move(0, this.places[0]);
  }

  /* Dividers: by pointer, also by a press anywhere in the frame, and by keys. */
  listen(slider, index) {
    slider.addEventListener("keydown", (event) => {
      const now = this.places[index];
      const to = { ArrowLeft: now - 2, ArrowDown: now - 2, ArrowRight: now + 2, ArrowUp: now + 2,
        PageDown: now - 10, PageUp: now + 10, Home: 0, End: 100 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      this.moved = true;
      this.move(index, to);
    });
  }

  press(event) {
    if (this.frame.dataset.view !== "swipe" || event.button !== 0) return;
    const at = this.share(event);
    const own = this.sliders.indexOf(event.target.closest("[role=slider]"));
    const nearest = Math.abs(at - this.places[0]) <= Math.abs(at - this.places[1]) ? 0 : 1;
    const index = own < 0 ? nearest : own;
    const follow = (later) => this.move(index, this.share(later));
    const stop = () => {
      this.frame.removeEventListener("pointermove", follow);
      this.frame.removeEventListener("pointerup", stop);
      this.frame.removeEventListener("pointercancel", stop);
    };
    event.preventDefault();
    this.moved = true;
    this.sliders[index].focus({ preventScroll: true });
    this.frame.setPointerCapture(event.pointerId);
    this.frame.addEventListener("pointermove", follow);
    this.frame.addEventListener("pointerup", stop);
    this.frame.addEventListener("pointercancel", stop);
    if (own < 0) follow(event);
  }

  share(event) {
    const box = this.frame.getBoundingClientRect();
    return (100 * (event.clientX - box.left)) / box.width;
  }

  /* Each picture gets a third of the breast. */
  toThirds(le, width) {
    const columns = new Set();
    le.forEach((value, i) => { if (value > 12) columns.add(i % width); });
    if (!columns.size) return;
    const [low, high] = [Math.min(...columns), Math.max(...columns) + 1];
    [1, 2].forEach((third) => this.move(third - 1, (100 * (low + (third * (high - low)) / 3)) / width));
  }

  move(index, to) {
    const place = Math.min(100, Math.max(0, to));
    this.places[index] = place;
    // a divider that meets the other one takes it along
    if (index === 0) this.places[1] = Math.max(this.places[1], place);
    else this.places[0] = Math.min(this.places[0], place);
    this.sliders.forEach((slider, i) => {
      this.frame.style.setProperty(i ? "--second" : "--first", `${this.places[i]}%`);
      slider.setAttribute("aria-valuenow", Math.round(this.places[i]));
      slider.setAttribute("aria-valuetext", `${Math.round(this.places[i])} % from the left`);
    });
  }

  setView(view) {
    this.frame.dataset.view = view;
  }

  setHeat(on) {
    this.frame.dataset.heat = on ? "on" : "off";
    this.draw();
  }

  setOutline(on) {
    this.frame.dataset.outline = on ? "on" : "off";
  }

  setWindow(window) {
    this.chosen = window;
    this.draw();
  }

  get window() {
    return this.chosen || this.own;
  }

  async show(one, arm) {
    const turn = ++this.turn;
    const read = await Promise.all([one.le, one.real, one.virtual[arm]].map((uri) => greysOf(uri)));
    if (turn !== this.turn) return; // another case was asked for in the meantime
    const [le, real, virtual] = read;
    this.greys = { le, real, virtual };
    this.own = one.window;
    this.size = [one.width, one.height];
    this.frame.style.setProperty("--ratio", one.width / one.height);
    Object.values(this.layers).forEach((layer) => {
      const svg = layer.querySelector("svg");
      svg.setAttribute("viewBox", `0 0 ${one.width} ${one.height}`);
      svg.querySelectorAll("path").forEach((path) => path.setAttribute("d", one.outline));
    });
    if (!this.moved) this.toThirds(le, one.width);
    this.draw();
    this.frame.dataset.case = one.name;
  }

  draw() {
    const { le, real, virtual } = this.greys;
    if (!le) return;
    const grey = greyTable(0, 255);
    const des = greyTable(...this.window);
    this.paint("le", (i) => grey[le[i]]);
    this.paint("real", (i) => des[real[i]]);
    this.paint("virtual", (i) => (virtual ? des[virtual[i]] : 0xff000000));
    if (this.frame.dataset.heat === "on" && virtual) {
      const heat = heatTable(this.data);
      this.paint("error", (i) => heat[virtual[i] - real[i] + 255]);
    }
  }

  paint(layer, colour) {
    const canvas = this.layers[layer].querySelector("canvas");
    [canvas.width, canvas.height] = this.size;
    const context = canvas.getContext("2d");
    const image = context.createImageData(...this.size);
    const pixels = new Uint32Array(image.data.buffer);
    for (let i = 0; i < pixels.length; i++) pixels[i] = colour(i);
    context.putImageData(image, 0, 0);
  }
}

/* Grey values of an embedded picture; null where there is none. */
async function greysOf(uri) {
  if (!uri) return null;
  const image = new Image();
  image.src = uri;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  return Uint8Array.from({ length: data.length / 4 }, (_, i) => data[4 * i]);
}

/* Colours as 32 bits; every machine that shows this page stores the lowest byte, red, first. */
function packed(red, green, blue) {
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

function greyTable(low, high) {
  return Uint32Array.from({ length: 256 }, (_, value) => {
    const grey = Math.round(255 * Math.min(1, Math.max(0, (value - low) / Math.max(1, high - low))));
    return packed(grey, grey, grey);
  });
}

/* Colour of each difference from -255 to 255 grey values. */
function heatTable(data) {
  return Uint32Array.from({ length: 511 }, (_, place) => {
    const share = (place - 255) / 255 / data.errorRange; // -1 to 1 inside the range
    const step = Math.round((data.colours.length / 3 - 1) * Math.min(1, Math.max(0, (share + 1) / 2)));
    return packed(...data.colours.slice(3 * step, 3 * step + 3));
  });
}
