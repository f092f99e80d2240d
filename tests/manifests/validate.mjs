// Holds Kubernetes manifests against the types of Kubernetes and of the operators, and prints every document as JSON.
//
//   node validate.mjs FILE...
//
// Called by tests/it/observe/manifests.rs. YAML is read strictly; a field that no type knows (a misspelt one, mostly) is a mistake
// here, though a cluster would drop it in silence. Kinds without types are printed unchecked, and their names go to standard error.

import { readFileSync } from "node:fs";
import { parseAllDocuments } from "yaml";

const PACKAGES = {
  "keda.sh": "@kubernetes-models/keda/",
  "monitoring.coreos.com": "@kubernetes-models/prometheus-operator/",
};
// RabbitMQ's operator publishes no types for JavaScript.
const UNTYPED = ["rabbitmq.com/v1beta1 RabbitmqCluster"];
// Free-form by their type.
const MAPS = /^(metadata\/(labels|annotations)|.*\/(labels|annotations|matchLabels|limits|requests|metadata))$/;

async function model({ apiVersion, kind }) {
  const group = apiVersion.includes("/") ? apiVersion.split("/")[0] : "";
  const models = await import((PACKAGES[group] ?? "kubernetes-models/") + apiVersion);
  return models[kind];
}

// Wraps `value` so that every field somebody asks for is noted, and returns what was never asked for: no type has it.
function watched(value, path, unasked) {
  if (value === null || typeof value !== "object" || MAPS.test(path)) return value;
  const fields = Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [key, watched(inner, path ? `${path}/${key}` : key, unasked)]),
  );
  const copy = Array.isArray(value) ? Object.values(fields) : fields;
  if (!Array.isArray(value)) Object.keys(value).forEach((key) => unasked.add(path ? `${path}/${key}` : key));
  return new Proxy(copy, {
    get(target, key, receiver) {
      if (typeof key === "string") unasked.delete(path ? `${path}/${key}` : key);
      return Reflect.get(target, key, receiver);
    },
  });
}

const documents = [];
const mistakes = [];
for (const file of process.argv.slice(2)) {
  for (const parsed of parseAllDocuments(readFileSync(file, "utf8"), { strict: true, uniqueKeys: true })) {
    for (const problem of [...parsed.errors, ...parsed.warnings]) mistakes.push(`${file}: ${problem.message}`);
    const document = parsed.toJS();
    documents.push(document);
    const name = `${document.apiVersion} ${document.kind}`;
    if (UNTYPED.includes(name)) {
      console.error(`${file}: ${name} is not checked against a type`);
      continue;
    }
    const Model = await model(document);
    if (!Model) {
      mistakes.push(`${file}: there is no ${name}`);
      continue;
    }
    const unasked = new Set();
    try {
      Model.prototype.validate.call(watched(document, "", unasked));
    } catch (error) {
      mistakes.push(`${file}: ${name}: ${error.message}`);
    }
    for (const field of unasked) mistakes.push(`${file}: ${name}: no type has the field ${field}`);
  }
}
console.log(JSON.stringify(documents));
if (mistakes.length > 0) {
  console.error(mistakes.join("\n"));
  process.exit(1);
}
