/** Exit codes of the signals that end a process, as shells have them. */
const ENDINGS = { SIGHUP: 129, SIGTERM: 143 } as const;

/**
 * Hands each key of a terminal on standard input to the reader as it is pressed. Deno gives a
 * terminal back when the process exits, but a signal would end it without.
 *
 * @returns What ends it; undefined if standard input is no terminal.
 */
export function enterRawMode(): (() => void) | undefined {
  if (!Deno.stdin.isTerminal()) return undefined;
  const listeners = Object.entries(ENDINGS).map(([signal, code]) => {
    const end = (): void => Deno.exit(code);
    Deno.addSignalListener(signal as keyof typeof ENDINGS, end);
    return () => Deno.removeSignalListener(signal as keyof typeof ENDINGS, end);
  });
  Deno.stdin.setRaw(true);
  return () => {
    Deno.stdin.setRaw(false);
    for (const remove of listeners) remove();
  };
}

const CTRL_A = 1;
const KEY_H = 0x68;
const KEY_X = 0x78;

/** What the keys after Ctrl-A do. */
export interface EscapeActions {
  /** Ctrl-A x. */
  leave(): void;
  /** Ctrl-A h. */
  help(): void;
}

/** What Ctrl-A h prints. */
export const ESCAPE_HELP = `
Ctrl-A h       print this help
Ctrl-A x       leave
Ctrl-A Ctrl-A  send Ctrl-A`;

/** Takes the keys that are for us, with Ctrl-A in front as QEMU has it, out of what goes to the guest. */
export class EscapeFilter {
  readonly #actions: EscapeActions;
  #escaped = false;

  constructor(actions: EscapeActions) {
    this.#actions = actions;
  }

  /** What of `input` is for the guest. */
  filter(input: Uint8Array): Uint8Array {
    const output: number[] = [];
    for (const byte of input) {
      if (!this.#escaped) {
        if (byte === CTRL_A) this.#escaped = true;
        else output.push(byte);
        continue;
      }
      this.#escaped = false;
      if (byte === CTRL_A) output.push(byte);
      else if (byte === KEY_X) this.#actions.leave();
      else if (byte === KEY_H) this.#actions.help();
    }
    return Uint8Array.from(output);
  }
}
