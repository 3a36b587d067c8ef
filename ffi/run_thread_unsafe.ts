/**
 * The near side of a thread that runs a vCPU in the kernel. All that follows from an exit is done on this side, so
 * whatever vCPUs share needs no locks.
 *
 * Unsafe, because it names a thread to the kernel.
 *
 * @module
 */
import type { RunThread } from "./system_calls.ts";
import type { RunOrder } from "./run_worker_unsafe.ts";
import { RunState, Word } from "./run_words.ts";

/** A thread in a worker. */
export class WorkerThread implements RunThread {
  readonly #words = new Int32Array(
    new SharedArrayBuffer(4 * Word.Count),
  );
  readonly #worker: Worker;
  readonly #signal: (thread: number) => void;

  /**
   * Starts the thread.
   *
   * @param path The C library.
   * @param signal Interrupts a blocking call of a thread of this process.
   */
  constructor(path: string, signal: (thread: number) => void) {
    this.#signal = signal;
    this.#worker = new Worker(
      new URL("./run_worker_unsafe.ts", import.meta.url),
      { type: "module" },
    );
    this.#worker.postMessage(
      { path, words: this.#words } satisfies RunOrder,
    );
  }

  async run(fd: number): Promise<number> {
    const words = this.#words;
    await this.#leave(RunState.Starting);
    words[Word.File] = fd;
    Atomics.store(words, Word.State, RunState.Running);
    Atomics.notify(words, Word.State);
    await this.#leave(RunState.Running);
    return words[Word.Result]!;
  }

  async #leave(state: number): Promise<void> {
    while (Atomics.load(this.#words, Word.State) === state) {
      await Atomics.waitAsync(this.#words, Word.State, state).value;
    }
  }

  interrupt(): void {
    if (Atomics.load(this.#words, Word.State) === RunState.Running) {
      this.#signal(this.#words[Word.Thread]!);
    }
  }

  settle(): void {
    this.interrupt();
    while (Atomics.load(this.#words, Word.State) === RunState.Running) {
      Atomics.wait(this.#words, Word.State, RunState.Running);
    }
  }

  close(): void {
    this.settle();
    if (Atomics.load(this.#words, Word.State) === RunState.Starting) {
      this.#worker.terminate();
      return;
    }
    Atomics.store(this.#words, Word.State, RunState.Quit);
    Atomics.notify(this.#words, Word.State);
  }
}
