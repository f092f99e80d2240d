// Numbers and times as people read them. What is not known says so and is never 0.

const grouped = new Intl.NumberFormat('en');

export const number = value => (value === null || value === undefined ? 'unknown' : grouped.format(value));

export function rate(value) {
  if (value === null || value === undefined) return 'unknown';
  return value >= 100 ? grouped.format(Math.round(value)) : value.toFixed(1);
}

// A span by its largest two units: 3d 4h, 2m 5s, 12s.
export function span(millis) {
  const seconds = Math.max(0, Math.floor(millis / 1000));
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m ${seconds % 60}s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)}h ${Math.floor((seconds % 3600) / 60)}m`;
  return `${Math.floor(seconds / 86400)}d ${Math.floor((seconds % 86400) / 3600)}h`;
}

const two = value => String(value).padStart(2, '0');

// Times of the reader's clock; the day is named when it is not today. They do not tick, so nothing moves while nothing changes.
export function time(millis) {
  const at = new Date(millis);
  const clock = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  const today = new Date();
  if (at.toDateString() === today.toDateString()) return clock;
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock}`;
}

export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

// Reasons stand with underscores in the ledger; people read words.
export const words = name => (name ?? 'unknown').replaceAll('_', ' ');
