/** What a run of the command line left behind. */
export interface CliResult {
  code: number;
  stdout: string;
  stderr: string;
}

const MAIN = new URL("../../cli/main.ts", import.meta.url);

/** Starts the command line as a process of its own. */
export function startCli(args: readonly string[]): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", MAIN.pathname, ...args],
    env: { NO_COLOR: "1" },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

/** Waits for a process of {@linkcode startCli}. */
export async function finishCli(
  process: Deno.ChildProcess,
): Promise<CliResult> {
  const { code, stdout, stderr } = await process.output();
  const decoder = new TextDecoder();
  return {
    code,
    stdout: decoder.decode(stdout),
    stderr: decoder.decode(stderr),
  };
}

/** Runs the command line to its end. */
export function runCli(...args: string[]): Promise<CliResult> {
  return finishCli(startCli(args));
}

/** Writes `bytes` to a file for the time of `work`. */
export async function withImage<T>(
  bytes: readonly number[],
  work: (path: string) => Promise<T>,
): Promise<T> {
  const path = await Deno.makeTempFile({ suffix: ".bin" });
  try {
    await Deno.writeFile(path, new Uint8Array(bytes));
    return await work(path);
  } finally {
    await Deno.remove(path);
  }
}
