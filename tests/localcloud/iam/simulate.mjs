// Reads requests as JSON from stdin, and writes the result of each: allowed, explicitDeny or implicitDeny.
// The unsafe simulation asks for no more than the evaluation: it takes any condition key with any action. With a
// policy of the resource it fails, and the other one is asked.
import { runSimulation, runUnsafeSimulation } from "@cloud-copilot/iam-simulate";
import { text } from "node:stream/consumers";

const NAMES = { Allowed: "allowed", ExplicitlyDenied: "explicitDeny", ImplicitlyDenied: "implicitDeny" };
const ALL = { Version: "2012-10-17", Statement: { Effect: "Allow", Action: "*", Resource: "*" } };

async function simulate({ principal, account, action, resource, context, policies, ofResource }) {
  const simulation = {
    identityPolicies: policies.map((policy, number) => ({ name: `policy ${number}`, policy })),
    serviceControlPolicies: [{ orgIdentifier: "all", policies: [{ name: "all", policy: ALL }] }],
    resourceControlPolicies: [],
    resourcePolicy: ofResource ?? undefined,
    request: { principal, action, resource: { resource, accountId: account }, contextVariables: context },
  };
  if (!ofResource) return NAMES[runUnsafeSimulation(simulation, {})];
  const answer = await runSimulation(simulation, {});
  return NAMES[answer.overallResult] ?? JSON.stringify(answer.errors);
}

console.log(JSON.stringify(await Promise.all(JSON.parse(await text(process.stdin)).map(simulate))));
