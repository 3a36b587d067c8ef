/**
 * Runs cases on this machine's processor. Needs gcc, Linux on x86-64, and leave to map
 * addresses from 0x8000 on.
 *
 * @module
 */
import { normalize, REQUEST, Request, RESPONSE } from "./simd_cases.ts";

/** The program; whoever builds it removes it. */
export async function buildNative(): Promise<string> {
  const program = await Deno.makeTempFile();
  const source = new URL("native_simd.c", import.meta.url).pathname;
  const { success, stderr } = await new Deno.Command("gcc", {
    args: ["-O2", "-Wall", "-static-pie", "-o", program, source],
  }).output();
  if (!success) throw new Error(new TextDecoder().decode(stderr));
  return program;
}

/** The outcomes of cases, one after the other. */
export async function runNative(
  program: string,
  requests: Uint8Array<ArrayBuffer>,
): Promise<Uint8Array<ArrayBuffer>> {
  const child = new Deno.Command(program, { stdin: "piped", stdout: "piped" })
    .spawn();
  const output = child.output();
  const writer = child.stdin.getWriter();
  await writer.write(requests);
  await writer.close();
  const { success, code, stdout } = await output;
  if (!success) throw new Error(`Cannot execute cases: exit code ${code}`);
  const count = requests.length / REQUEST;
  if (stdout.length !== count * RESPONSE) {
    throw new RangeError(`Cannot decode outcomes: ${stdout.length} bytes`);
  }
  for (let n = 0; n < count; n++) {
    const view = new DataView(stdout.buffer, stdout.byteOffset + n * RESPONSE);
    normalize(requests[n * REQUEST + Request.bits]!, view);
  }
  return stdout;
}
