/**
 * A thread that runs a vCPU in the kernel, told when by words of shared memory; see `run_thread_unsafe.ts`.
 *
 * Unsafe, because it calls the C library.
 *
 * @module
 */
import { Ioctl } from "./kvm_layout.ts";
import { RunState, Word } from "./run_words.ts";

// SAFETY: as in libc_unsafe.ts, which has loaded the same library.
const SYMBOLS = {
  ioctl: { parameters: ["i32", "u32", "u32"], result: "i32" },
  // long syscall(SYS_gettid)
  gettid: { name: "syscall", parameters: ["i64"], result: "i64" },
} as const satisfies Deno.ForeignLibraryInterface;
const SYS_GETTID = 186n;

/** What the thread is given. */
export interface RunOrder {
  /** Path of the C library. */
  path: string;
  /** Shared words: {@linkcode Word}. */
  words: Int32Array<SharedArrayBuffer>;
}

function serve({ path, words }: RunOrder): void {
  const { symbols } = Deno.dlopen(path, SYMBOLS);
  words[Word.Thread] = Number(symbols.gettid(SYS_GETTID));
  for (;;) {
    Atomics.store(words, Word.State, RunState.Idle);
    Atomics.notify(words, Word.State);
    Atomics.wait(words, Word.State, RunState.Idle);
    if (Atomics.load(words, Word.State) === RunState.Quit) return;
    words[Word.Result] = symbols.ioctl(words[Word.File]!, Ioctl.Run, 0);
  }
}

const scope = globalThis as unknown as {
  onmessage: ((event: MessageEvent<RunOrder>) => void) | null;
  close(): void;
};
scope.onmessage = ({ data }) => {
  serve(data);
  scope.close();
};
