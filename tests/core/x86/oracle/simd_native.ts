import { buildProgram, runNative } from "./native.ts";
import { normalize, REQUEST, Request, RESPONSE } from "./simd_cases.ts";

/** The compiled native_simd.c. Needs gcc, and Linux on x86-64. */
export class NativeSimd implements AsyncDisposable {
  readonly #path: string;

  private constructor(path: string) {
    this.#path = path;
  }

  /**
   * Compiles it.
   *
   * @throws {Deno.errors.NotFound} If there is no gcc.
   */
  static async build(): Promise<NativeSimd> {
    const source = new URL("native_simd.c", import.meta.url);
    return new NativeSimd(await buildProgram(source, ["-static-pie"]));
  }

  /** The outcomes of cases, one after the other. */
  async run(requests: Uint8Array): Promise<Uint8Array> {
    const outcomes = await runNative(this.#path, requests);
    const count = requests.length / REQUEST;
    if (outcomes.length !== count * RESPONSE) {
      throw new RangeError(`Cannot decode outcomes: ${outcomes.length} bytes`);
    }
    for (let n = 0; n < count; n++) {
      const at = outcomes.byteOffset + n * RESPONSE;
      const view = new DataView(outcomes.buffer, at);
      normalize(requests[n * REQUEST + Request.bits]!, view);
    }
    return outcomes;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.#path);
  }
}
