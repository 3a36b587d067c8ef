import { describeBackends } from "./backends.ts";
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
  for (const line of describeBackends()) console.log(line);
  return 0;
}
