import { findBackends } from "./backends.ts";
import { helpText } from "./help.ts";
import { parseOptions, UsageError } from "./usage.ts";
import { version } from "./version.ts";

/** Says which backends this machine offers, and why not. */
export function doctorCommand(args: readonly string[]): number {
  const options = parseOptions("doctor", args, {});
  if (options.flag("help")) {
    console.log(helpText("doctor"));
    return 0;
  }
  if (options.positional.length > 0) {
    throw new UsageError(
      `Cannot run doctor: unexpected argument ${options.positional[0]}`,
    );
  }
  const { deno, v8 } = Deno.version;
  console.log(
    `syndbg ${version}, Deno ${deno}, V8 ${v8}, ${Deno.build.os} ${Deno.build.arch}`,
  );
  const findings = findBackends();
  for (const { name, available, reason } of findings) {
    console.log(`${name.padEnd(6)} ${available ? "yes" : "no "}  ${reason}`);
  }
  const taken = findings.find((finding) => finding.available);
  console.log(`auto   takes ${taken?.name ?? "none"}`);
  return 0;
}
