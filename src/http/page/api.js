// Requests to herald: bounded in time, with the token when there is one, and failures as values with what to do.

const TIMEOUT = 8000;
const KEY = 'herald-token';

export class Refused extends Error {
  constructor(status, error, remedy) {
    super(error);
    this.status = status;
    this.remedy = remedy;
  }

  // What happened and what to do, as one text.
  get words() {
    return this.remedy ? `${this.message}. What to do: ${this.remedy}` : this.message;
  }
}

// Nobody answered.
export class Lost extends Error {}

let askForToken = async () => null;

// `ask(why)` resolves to a token, or to null when the person gave up.
export function onTokenNeeded(ask) {
  askForToken = ask;
}

// In this tab only, gone with it.
export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: value => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

async function send(path, options) {
  const headers = { ...options.headers };
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  let answer;
  try {
    answer = await fetch(path, {
      ...options,
      headers,
      cache: 'no-store',
      credentials: 'omit',
      redirect: 'error',
      signal: AbortSignal.timeout(TIMEOUT),
    });
  } catch (error) {
    throw new Lost(error.name === 'TimeoutError' ? 'no answer in time' : 'no answer');
  }
  const body = await answer.json().catch(() => null);
  if (answer.ok && body !== null) return body;
  throw new Refused(answer.status, body?.error ?? `herald answered ${answer.status}`, body?.do);
}

// `quiet`: does not ask for a token by itself.
async function ask(path, options, quiet) {
  for (;;) {
    try {
      return await send(path, options);
    } catch (error) {
      if (!(error instanceof Refused && error.status === 401) || quiet) throw error;
      const wrong = token.get() !== null;
      token.forget();
      const given = await askForToken(wrong);
      if (given === null) throw new Refused(401, error.message, 'nothing was done; try again and enter it');
      token.set(given);
    }
  }
}

export const get = (path, quiet = false) => ask(path, { method: 'GET' }, quiet);

export const post = (path, body) =>
  ask(path, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'X-Herald-Request': 'page' },
    body: JSON.stringify(body),
  });

// An address with those parameters that are set.
export function address(path, parameters) {
  const set = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== '');
  const query = new URLSearchParams(set).toString();
  return query ? `${path}?${query}` : path;
}
