// Charts, drawn by uPlot: depth of the queues and rates over the last hour.

import { make } from './dom.js';

const KEEP = 3600;

const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// A chart of lines over time in `box`. `lines`: { name, colour, dashed, shown }.
export class Chart {
  constructor(box, { height, onHover, sync, bare }) {
    Object.assign(this, { box, height, onHover, sync, bare });
    this.lines = [];
    this.data = [[]];
    this.range = 900;
    this.plot = null;
    this.empty = make('div', { class: 'empty' }, 'The chart begins with the next look, every five seconds');
    box.append(this.empty);
    new ResizeObserver(() => this.resize()).observe(box);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.draw());
  }

  // Takes other lines: a new plot.
  setLines(lines) {
    this.lines = lines;
    this.draw();
  }

  // Takes the columns to show: seconds first, then one column for each line.
  setData(data) {
    this.data = data;
    if (this.plot) this.plot.setData(this.cut());
    else this.draw();
  }

  setRange(seconds) {
    this.range = seconds;
    if (this.plot) this.plot.setData(this.cut());
  }

  showLine(index, shown) {
    this.lines[index].shown = shown;
    this.plot?.setSeries(index + 1, { show: shown });
  }

  // What lies in the range shown.
  cut() {
    const [seconds] = this.data;
    const from = (seconds.at(-1) ?? 0) - this.range;
    const start = seconds.findIndex(second => second >= from);
    return start <= 0 ? this.data : this.data.map(column => column.slice(start));
  }

  resize() {
    const width = this.box.clientWidth;
    if (this.plot && width > 0 && width !== this.plot.width) this.plot.setSize({ width, height: this.height });
    else if (!this.plot) this.draw();
  }

  draw() {
    this.plot?.destroy();
    this.plot = null;
    const width = this.box.clientWidth;
    this.empty.hidden = this.data[0].length > 1;
    if (!this.empty.hidden || width === 0 || this.lines.length === 0) return;
    this.plot = new window.uPlot(this.options(width), this.cut(), this.box);
  }

  options(width) {
    const [text, grid] = [colour('--dim'), colour('--soft')];
    const axis = { stroke: text, font: '12px system-ui, sans-serif', grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 } };
    const whole = (_, splits) => splits.map(value => (Number.isInteger(value) ? value.toLocaleString('en') : ''));
    return {
      width,
      height: this.height,
      legend: { show: false },
      cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false }, sync: { key: this.sync } },
      scales: {
        x: { range: (_, min, max) => [Math.min(min, max - Math.min(this.range, 120)), max] },
        y: { range: (_, min, max) => [0, Math.max(4, (max ?? 0) * 1.08)] },
      },
      axes: [
        { ...axis, values: (_, splits) => splits.map(this.bare ? () => '' : clock), space: 70, ...(this.bare ? { size: 8 } : {}) },
        { ...axis, values: whole, size: 52, space: this.bare ? 20 : 36 },
      ],
      series: [
        {},
        ...this.lines.map(line => ({
          label: line.name,
          stroke: colour(line.colour),
          width: line.dashed ? 1.25 : 1.75,
          dash: line.dashed ? [4, 4] : undefined,
          show: line.shown,
          points: { show: false },
        })),
      ],
      hooks: { setCursor: [plot => this.onHover?.(plot.cursor.idx, plot.data)] },
    };
  }
}

function clock(seconds) {
  const at = new Date(seconds * 1000);
  return [at.getHours(), at.getMinutes(), ...(at.getSeconds() ? [at.getSeconds()] : [])].map(part => String(part).padStart(2, '0')).join(':');
}

// Adds newer points to older ones and lets go of what is over an hour old.
export function extend(columns, newer) {
  const all = columns.map((column, index) => column.concat(newer[index]));
  const from = (all[0].at(-1) ?? 0) - KEEP;
  const start = all[0].findIndex(second => second >= from);
  return start <= 0 ? all : all.map(column => column.slice(start));
}
