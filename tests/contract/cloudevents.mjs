// Makes messages with the official CloudEvents package. Standard input: a JSON list of {mode, event}; standard output: a list of
// {contentType, headers, body}, in that order.

import fs from 'node:fs';

import { CloudEvent, HTTP } from 'cloudevents';

const MODES = {
  structured: (event) => HTTP.structured(event),
  binary: (event) => HTTP.binary(event),
};

const messages = JSON.parse(fs.readFileSync(0, 'utf8')).map(({ mode, event }) => {
  const { headers, body } = MODES[mode](new CloudEvent(event));
  const { 'content-type': contentType, ...attributes } = headers;
  // From the HTTP binding to herald's: another prefix. This package leaves the values as they are.
  const renamed = Object.entries(attributes).map(([name, value]) => [name.replace(/^ce-/, 'cloudEvents_'), value]);
  return { contentType, headers: Object.fromEntries(renamed), body };
});
console.log(JSON.stringify(messages));
