/**
 * Builds and runs native.c.
 *
 * @module
 */

/** Builds the program; the caller removes it. */
export async function buildNative(): Promise<string> {
  const program = await Deno.makeTempFile();
  const source = new URL("native.c", import.meta.url).pathname;
  const { success } = await new Deno.Command("gcc", {
    args: ["-O2", "-Wall", "-static-pie", "-o", program, source],
  }).output();
  if (!success) throw new Error(`Cannot build: ${source}`);
  return program;
}

/** Runs it on encoded cases: encoded outcomes. */
export async function runNative(
  program: string,
  input: Uint8Array,
): Promise<Uint8Array> {
  const child = new Deno.Command(program, { stdin: "piped", stdout: "piped" })
    .spawn();
  const output = child.output();
  const writer = child.stdin.getWriter();
  await writer.write(input);
  await writer.close();
  const { success, code, stdout } = await output;
  if (!success) throw new Error(`Cannot execute cases: exit code ${code}`);
  return stdout;
}
