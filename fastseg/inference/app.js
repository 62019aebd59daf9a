// Draws masks over the photograph and answers its switches. `element` and `watch` are Gradio's.
const state = { level: null, show: 'masks', opacity: null, hidden: new Set(), over: null };
const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
let view = null, tree = null, ids = null, sure = null, canvas = null;

const find = (selector) => view.querySelector(selector);
const all = (selector) => [...view.querySelectorAll(selector)];
const key = (node) => `${state.level}/${node}`;

async function pixels(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  const sheet = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const pen = sheet.getContext('2d', { willReadFrequently: true });
  pen.drawImage(image, 0, 0);
  const rgba = pen.getImageData(0, 0, sheet.width, sheet.height);
  return Uint8Array.from({ length: rgba.data.length / 4 }, (_, i) => rgba.data[4 * i]);
}

function ramp(percent) {
  const place = Math.min(percent, 99.99) / 100 * (RAMP.length - 1), i = Math.floor(place), t = place - i;
  return RAMP[i].map((value, c) => value + (RAMP[i + 1][c] - value) * t);
}

function colours() {
  const at = tree.levels[state.level], shown = new Set(at.shown);
  return at.table.map((node) => {
    if (!shown.has(node) || state.hidden.has(key(node))) return [0, 0, 0, 0];
    return [...at.colours[node], state.over === null || state.over === node ? 255 : 70];
  });
}

function draw() {
  if (!ids) return;
  const pen = canvas.getContext('2d'), picture = pen.createImageData(canvas.width, canvas.height);
  const out = picture.data, table = colours(), scale = Array.from({ length: 101 }, (_, i) => ramp(i));
  for (let i = 0; i < ids.length && state.show !== 'nothing'; i++) {
    const colour = state.show === 'masks' ? table[ids[i]] : scale[Math.min(sure[i], 100)];
    out[4 * i] = colour[0]; out[4 * i + 1] = colour[1]; out[4 * i + 2] = colour[2];
    out[4 * i + 3] = state.show === 'masks' ? colour[3] : 255;
  }
  pen.putImageData(picture, 0, 0);
  canvas.style.opacity = state.opacity / 100;
  view.dataset.drawn = `${state.level} ${state.show} ${state.hidden.size}`;
}

function apply() {
  find(`[name=fs-level][value="${state.level}"]`).checked = true;
  find(`[name=fs-show][value="${state.show}"]`).checked = true;
  find('[name=opacity]').value = state.opacity;
  find('.fs-range output').textContent = `${state.opacity} %`;
  find('.fs-ramp').hidden = state.show !== 'confidence';
  for (const table of all('.fs-areas')) {
    table.hidden = Number(table.dataset.level) !== state.level;
    for (const box of table.querySelectorAll('input')) {
      box.checked = !state.hidden.has(`${table.dataset.level}/${box.dataset.node}`);
    }
  }
  draw();
}

function over(node) {
  if (state.over === node) return;
  state.over = node;
  for (const row of all('.fs-areas:not([hidden]) tr[data-node]')) {
    row.classList.toggle('fs-over', node !== null && Number(row.dataset.node) === node);
  }
  draw();
}

function say(text) { find('.fs-read output').textContent = text; }

function point(event) {
  const box = canvas.getBoundingClientRect();
  const x = Math.floor((event.clientX - box.left) / box.width * canvas.width);
  const y = Math.floor((event.clientY - box.top) / box.height * canvas.height);
  if (!ids || x < 0 || y < 0 || x >= canvas.width || y >= canvas.height) return;
  const i = y * canvas.width + x, leaf = ids[i], node = tree.levels[state.level].table[leaf];
  const way = tree.levels.slice(0, state.level + 1).map((at) => at.names[at.table[leaf]]);
  say(`${[...new Set(way)].join(' › ')}, probability ${sure[i]} %`);
  over(leaf === tree.background ? null : node);
}

async function start() {
  view = element.querySelector('.fs-view');
  ids = sure = null;
  if (!view) return;
  const mine = view;
  tree = JSON.parse(view.dataset.tree);
  canvas = find('canvas');
  state.over = null;
  if (state.level === null || state.level >= tree.levels.length) state.level = tree.levels.length - 1;
  if (state.opacity === null) state.opacity = Number(find('[name=opacity]').value);
  const image = find('.fs-stage img');
  canvas.width = image.getAttribute('width');
  canvas.height = image.getAttribute('height');
  const read = await Promise.all([pixels(view.dataset.ids), pixels(view.dataset.confidence)]);
  if (mine !== view) return;
  [ids, sure] = read;
  apply();
  // On a phone the masks are below the fold.
  const top = element.getBoundingClientRect().top;
  if (innerWidth < 700 && top > innerHeight * 0.6) {
    const still = matchMedia('(prefers-reduced-motion: reduce)').matches;
    element.scrollIntoView({ behavior: still ? 'auto' : 'smooth', block: 'start' });
  }
}

element.addEventListener('input', ({ target }) => {
  if (!view) return;
  if (target.name === 'fs-level') state.level = Number(target.value);
  if (target.name === 'fs-show') state.show = target.value;
  if (target.name === 'opacity') state.opacity = Number(target.value);
  if (target.dataset.node) state.hidden[target.checked ? 'delete' : 'add'](key(target.dataset.node));
  state.over = null;
  apply();
});
element.addEventListener('click', ({ target }) => {
  if (!view || target.dataset.all === undefined) return;
  for (const node of tree.levels[state.level].shown) state.hidden[target.dataset.all === '1' ? 'delete' : 'add'](key(node));
  apply();
});
const row = (target) => view && target.closest && target.closest('tr[data-node]');
const enter = ({ target }) => {
  if (view && target === canvas) return;
  const line = row(target);
  over(line && line.querySelector('input') ? Number(line.dataset.node) : null);
};
element.addEventListener('pointermove', (event) => { if (view && event.target === canvas) point(event); });
element.addEventListener('pointerdown', (event) => { if (view && event.target === canvas) point(event); });
element.addEventListener('pointerover', (event) => { if (view) enter(event); });
element.addEventListener('pointerleave', () => { if (view) over(null); });
element.addEventListener('focusin', ({ target }) => { if (view && target.matches(':focus-visible')) enter({ target }); });
element.addEventListener('focusout', () => { if (view) over(null); });
watch('value', start);
start();
