/**
 * Builds and runs native programs.
 *
 * @module
 */

/** Builds a program of one C file; the caller removes it. */
export async function buildProgram(
  source: URL,
  options: readonly string[] = [],
): Promise<string> {
  const program = await Deno.makeTempFile();
  const { success } = await new Deno.Command("gcc", {
    args: ["-O2", "-Wall", ...options, "-o", program, source.pathname],
  }).output();
  if (!success) throw new Error(`Cannot build: ${source.pathname}`);
  return program;
}

/** Builds native.c. */
export function buildNative(): Promise<string> {
  return buildProgram(new URL("native.c", import.meta.url), [
    "-static-pie",
    "-mno-red-zone",
  ]);
}

/** Runs a program on its standard input: its standard output. */
export async function runNative(
  program: string,
  input: Uint8Array,
): Promise<Uint8Array> {
  const child = new Deno.Command(program, { stdin: "piped", stdout: "piped" })
    .spawn();
  const output = child.output();
  const writer = child.stdin.getWriter();
  // If it ends early the exit code tells.
  await writer.write(input).then(() => writer.close(), () => {});
  const { success, code, stdout } = await output;
  if (!success) throw new Error(`Cannot execute cases: exit code ${code}`);
  return stdout;
}
