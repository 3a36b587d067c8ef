import {
  type Case,
  decodeResponses,
  encodeRequests,
  type Outcome,
} from "./cases.ts";
import { buildNative, runNative } from "./native.ts";

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
    return new NativeProgram(await buildNative());
  }

  /** Executes cases. */
  async run(cases: readonly Case[]): Promise<Outcome[]> {
    return decodeResponses(
      cases,
      await runNative(this.#path, encodeRequests(cases)),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.#path);
  }
}
