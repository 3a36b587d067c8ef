import {
  type Case,
  decodeResponses,
  encodeRequests,
  type Outcome,
} from "./cases.ts";

/** The compiled native.c: executes cases on this machine's processor. Needs gcc, and Linux on x86-64. */
export class NativeProgram implements AsyncDisposable {
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  /**
   * Compiles it.
   *
   * @throws {Deno.errors.NotFound} If there is no gcc.
   */
  static async build(): Promise<NativeProgram> {
    const path = await Deno.makeTempFile();
    const source = new URL("native.c", import.meta.url).pathname;
    const { success } = await new Deno.Command("gcc", {
      args: [
        ...["-O2", "-Wall", "-static-pie", "-mno-red-zone"],
        ...["-o", path, source],
      ],
    }).output();
    if (!success) throw new Error(`Cannot build: ${source}`);
    return new NativeProgram(path);
  }

  /** Executes cases. */
  async run(cases: readonly Case[]): Promise<Outcome[]> {
    const child = new Deno.Command(this.#path, {
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    const output = child.output();
    const writer = child.stdin.getWriter();
    // If it ends early the exit code tells.
    await writer.write(encodeRequests(cases)).then(
      () => writer.close(),
      () => {},
    );
    const { success, code, stdout } = await output;
    if (!success) throw new Error(`Cannot execute cases: exit code ${code}`);
    return decodeResponses(cases, stdout);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.#path);
  }
}
