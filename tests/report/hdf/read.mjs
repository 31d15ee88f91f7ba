// Prints what inspecjs makes of an HDF file: each control's status and severity, and the waivers.
import { readFileSync } from "node:fs";
import inspecjs from "inspecjs";

const file = inspecjs.convertFileContextual(readFileSync(process.argv[2], "utf-8"));
if (!inspecjs.isContextualizedEvaluation(file)) throw new Error("inspecjs takes it for no evaluation");
const controls = file.contains[0].contains.map((control) => ({
  id: control.data.id,
  status: control.hdf.status,
  severity: control.hdf.severity,
  waived: control.hdf.waived,
  message: control.hdf.message,
  finding: control.hdf.finding_details,
}));
console.log(JSON.stringify({ profile: file.contains[0].data.name, controls }));
