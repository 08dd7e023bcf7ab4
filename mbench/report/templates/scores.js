// Heat maps of scores: one pixel a cell, enlarged by the browser, coloured by rank in its layer.
"use strict";

{
  const ROW = 14, BLUE = [38, 99, 176], PALE = [238, 240, 242], VERMILLION = [180, 83, 10];  // px a layer
  const APART = 26;  // px between two numbers of experts
  const maps = JSON.parse(document.getElementById("scores").textContent);

  // Place in its layer, 0 for the best and 1 for the worst; equal scores by lower number.
  function ranks(row) {
    const best = [...row.keys()].sort((a, b) => row[b] - row[a]);
    const places = new Array(row.length);
    best.forEach((expert, place) => { places[expert] = place; });
    return places;
  }

  function colour(share) {
    const [from, to, part] = share < 0.5 ? [BLUE, PALE, share * 2] : [PALE, VERMILLION, share * 2 - 1];
    return from.map((value, at) => Math.round(value + (to[at] - value) * part));
  }

  // Numbers from 0 on in the middle of their rows or columns: all, or every second, fifth, tenth, ...
  function label(box, count, room, side) {
    const step = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((own) => count / own <= room) ?? count;
    for (let number = 0; number < count; number += step) {
      const text = Object.assign(document.createElement("span"), { textContent: number });
      text.style[side] = `${100 * (number + 0.5) / count}%`;
      box.append(text);
    }
  }

  for (const figure of document.querySelectorAll(".scores")) {
    const values = maps[figure.dataset.number], canvas = figure.querySelector("canvas");
    const experts = values[0].length, places = values.map(ranks);
    canvas.width = experts;
    canvas.height = values.length;
    canvas.style.height = `${ROW * values.length}px`;
    const context = canvas.getContext("2d"), image = context.createImageData(experts, values.length);
    places.forEach((row, layer) => row.forEach((place, expert) => {
      image.data.set([...colour(experts > 1 ? place / (experts - 1) : 0), 255], 4 * (layer * experts + expert));
    }));
    context.putImageData(image, 0, 0);
    label(figure.querySelector(".layers"), values.length, values.length, "top");
    label(figure.querySelector(".experts"), experts, canvas.clientWidth / APART, "left");
    canvas.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect();
      const cell = (at, from, size, count) => Math.min(count - 1, Math.max(0, Math.floor((at - from) / size * count)));
      const layer = cell(event.clientY, box.top, box.height, values.length);
      const expert = cell(event.clientX, box.left, box.width, experts);
      const rank = places[layer][expert] + 1;
      figure.querySelector(".readout").textContent =
        `layer ${layer}, expert ${expert}: ${Number(values[layer][expert].toPrecision(5))}, rank ${rank} of ${experts}`;
    });
  }
  document.documentElement.dataset.ready = "";
}
