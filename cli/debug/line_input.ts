import { createInterface, type Interface } from "node:readline";
import process from "node:process";

/** What a {@linkcode LineInput} needs. */
export interface LineInputOptions {
  /** Shown before each line. */
  prompt: string;
  /** Words that may follow what was typed. */
  complete: (word: string) => string[];
  /** Ctrl-C. */
  onInterrupt: () => void;
}

/** Lines from standard input, with editing, history and completion at a terminal. */
export class LineInput {
  readonly #interface: Interface;
  readonly #terminal: boolean;
  readonly #lines: string[] = [];
  #waiting: ((line: string | undefined) => void) | undefined;
  #closed = false;

  constructor({ prompt, complete, onInterrupt }: LineInputOptions) {
    this.#terminal = Deno.stdin.isTerminal() && Deno.stdout.isTerminal();
    this.#interface = createInterface({
      input: process.stdin,
      output: this.#terminal ? process.stdout : undefined,
      terminal: this.#terminal,
      prompt,
      completer: (line: string) => {
        const word = /[^\s(+*-]*$/.exec(line)![0];
        return [complete(word), word];
      },
    });
    this.#interface.on("line", (line: string) => {
      const waiting = this.#waiting;
      this.#waiting = undefined;
      if (waiting) waiting(line);
      else this.#lines.push(line);
    });
    this.#interface.on("close", () => {
      this.#closed = true;
      Deno.removeSignalListener("SIGINT", onInterrupt);
      this.#waiting?.(undefined);
    });
    // A terminal in raw mode tells the reader, else it is a signal.
    this.#interface.on("SIGINT", onInterrupt);
    Deno.addSignalListener("SIGINT", onInterrupt);
  }

  /** The next line, asked for with the prompt; undefined at the end. */
  async next(): Promise<string | undefined> {
    if (this.#terminal && !this.#closed) this.#interface.prompt();
    return await this.#take();
  }

  /** A line for somebody else, without the prompt. */
  async ask(): Promise<string> {
    // The line that a command is waited for in comes first.
    const command = this.#waiting;
    this.#waiting = undefined;
    const line = await this.#take();
    if (this.#closed) command?.(undefined);
    else this.#waiting = command;
    return line ?? "";
  }

  /** Takes the prompt and what is typed away from the screen, before something is written. */
  hide(): void {
    if (this.#terminal && this.#waiting) write("\r\x1b[K");
  }

  /** Brings both back. */
  show(): void {
    if (this.#terminal && this.#waiting) this.#interface.prompt(true);
  }

  /** Ends the input: {@linkcode LineInput.next} gives no more. */
  close(): void {
    if (!this.#closed) this.#interface.close();
  }

  #take(): Promise<string | undefined> {
    const line = this.#lines.shift();
    if (line !== undefined || this.#closed) return Promise.resolve(line);
    return new Promise((resolve) => this.#waiting = resolve);
  }
}

function write(text: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(text));
}
