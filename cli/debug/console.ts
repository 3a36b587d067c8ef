import type { DebugTransport } from "../../hyperv/debug_transport.ts";
import type { KdnetCounters } from "../../hyperv/kd/counters.ts";
import { KdError } from "../../hyperv/kd/link.ts";
import { KdSession } from "../../hyperv/kd/session.ts";
import { ExitCode, UsageError } from "../usage.ts";
import { COMMAND_NAMES, runCommand, splitCommands } from "./commands.ts";
import { json, plain } from "./format.ts";
import { LineInput } from "./line_input.ts";
import {
  CommandError,
  type CommandResult,
  DebugShell,
  type SymbolFile,
} from "./shell.ts";

/** How the console is used. */
export interface ConsoleOptions {
  /** The wire to the target. */
  transport: DebugTransport;
  /** Key text. */
  key: string;
  /** Commands to run after a break-in; then the console ends. Without them it asks for some. */
  commands?: string;
  /** Whether all output is a JSON object a line. */
  json: boolean;
  /** Files of symbols. */
  symbols: readonly SymbolFile[];
  /** Whether to break in at once although no commands are given. */
  breakIn: boolean;
  /** Milliseconds that commands may take in all. */
  timeout?: number;
  /** Raised when there will be no target any more. */
  gone?: AbortSignal;
}

/** Milliseconds after which it is said why nobody connects. */
const PATIENCE = 10_000;
const PROMPT = "kd> ";

/**
 * Why no target has connected, as far as the wire tells.
 *
 * @param held Whether a target lives in a session that is not ours.
 */
export function diagnosis(
  counters: Readonly<KdnetCounters>,
  held: boolean,
): string {
  const { received, malformed, wrongKey } = counters;
  if (held) return "a target is there, and in a session with another debugger";
  if (received === 0) return "no datagram has come: port, address, firewall?";
  if (wrongKey > 0) return `${wrongKey} datagrams came that another key made`;
  if (malformed > 0) return `${malformed} datagrams came that are not KDNET`;
  return "datagrams come, but no target offers a session";
}

type Work = (
  shell: DebugShell,
  wait: { signal: AbortSignal },
) => Promise<CommandResult>;
type Done = "done" | "failed" | "quit";

/** A debugger's console: shows what the target does, and runs commands. */
class Console {
  readonly #options: ConsoleOptions;
  #shell!: DebugShell;
  #input: LineInput | undefined;
  /** Ends what a command waits for. */
  #command: AbortController | undefined;
  #interrupted = false;
  #turn: Promise<unknown> = Promise.resolve();
  readonly #end = new AbortController();
  #leaves = false;
  /** The target's last print has not ended its line. */
  #midLine = false;
  #code: number = ExitCode.Success;

  constructor(options: ConsoleOptions) {
    this.#options = options;
  }

  async run(): Promise<number> {
    const { transport, key, gone, commands } = this.#options;
    let connects = 0;
    let held = false;
    const session = await KdSession.open({
      transport,
      key,
      events: {
        onConnected: (again) => {
          connects++;
          if (again) this.#shell.restarted();
          this.#event(again ? "restarted" : "connected", {}, [
            again ? "The target was restarted" : "A target is connected",
          ]);
        },
        onPoke: (event) => {
          held = event.kind === "keep-alive" && !event.ours;
        },
        onPrint: (text) => this.#print(text),
        onPrompt: async (prompt) => {
          this.#print(prompt.text);
          return await this.#input?.ask() ?? "";
        },
        onImage: ({ path, base, size, unload }) => {
          this.#shell.imageChanged(path, base, size, unload !== 0);
          const value = { path, base: json(base), size: json(size) };
          this.#event(unload ? "unload" : "load", value, [
            `${unload ? "Unloaded" : "Loaded"} ${plain(path)} at ${json(base)}`,
          ]);
        },
        onStop: () => {
          // Nobody waited for it.
          if (this.#command === undefined && !this.#leaves) {
            this.#act((shell, wait) => shell.breakIn(wait));
          }
        },
      },
    });
    this.#shell = new DebugShell(session);
    const patience = setTimeout(() => {
      if (connects === 0) this.#warn(diagnosis(session.counters, held));
    }, PATIENCE);
    const end = (): void => this.#end.abort();
    gone?.addEventListener("abort", end);
    if (gone?.aborted) end();
    try {
      for (const file of this.#options.symbols) this.#shell.addSymbols(file);
      if (commands !== undefined) await this.#script(commands);
      else await this.#interact();
      this.#leaves = true;
      if (!gone?.aborted) await this.#shell.leave();
    } catch (error) {
      if (error instanceof CommandError) throw new UsageError(error.message);
      throw error;
    } finally {
      clearTimeout(patience);
      gone?.removeEventListener("abort", end);
      this.#input?.close();
      session.close();
    }
    return this.#code;
  }

  /** Runs commands one after the other; the first that fails is the last. */
  async #script(commands: string): Promise<void> {
    const { timeout } = this.#options;
    const timer = setTimeout(() => {
      this.#code = ExitCode.Timeout;
      this.#end.abort();
    }, timeout ?? 2 ** 31 - 1);
    const interrupt = (): void => {
      this.#code = ExitCode.Interrupted;
      this.#end.abort();
    };
    Deno.addSignalListener("SIGINT", interrupt);
    try {
      for (const line of [".break", ...splitCommands(commands)]) {
        const done = await this.#act(
          (shell, wait) => runCommand(shell, line, wait),
          line,
        );
        if (done === "quit") return;
        if (done === "failed") {
          this.#code ||= ExitCode.Failure;
          return;
        }
      }
    } finally {
      clearTimeout(timer);
      Deno.removeSignalListener("SIGINT", interrupt);
    }
  }

  /** Asks for commands until there are no more. */
  async #interact(): Promise<void> {
    const input = new LineInput({
      prompt: this.#options.json ? "" : PROMPT,
      complete: (word) => [
        ...COMMAND_NAMES.filter((name) => name.startsWith(word)),
        ...this.#shell.symbols.completions(word),
      ],
      onInterrupt: () => this.#interrupt(),
    });
    this.#input = input;
    this.#end.signal.addEventListener("abort", () => input.close());
    if (this.#options.breakIn) {
      await this.#act((shell, wait) => shell.breakIn(wait), ".break");
    }
    for (let line; (line = await input.next()) !== undefined;) {
      for (const command of splitCommands(line)) {
        const done = await this.#act(
          (shell, wait) => runCommand(shell, command, wait),
          command,
        );
        if (done === "quit") return;
        if (done === "failed") break;
      }
    }
  }

  /** Ctrl-C: breaks in; while that is under way, ends the waiting. */
  #interrupt(): void {
    const { session } = this.#shell;
    if (this.#command === undefined) {
      this.#act((shell, wait) => shell.breakIn(wait), ".break");
    } else if (session.stop !== undefined || this.#interrupted) {
      this.#command.abort();
    } else {
      this.#interrupted = true;
      session.breakIn({ signal: this.#command.signal }).catch(() => {});
    }
  }

  /** Does something with the target, one thing after the other, and shows what comes of it. */
  #act(work: Work, command?: string): Promise<Done> {
    const turn = this.#turn.then(() => this.#perform(work, command));
    this.#turn = turn.catch(() => {});
    return turn;
  }

  async #perform(work: Work, command: string | undefined): Promise<Done> {
    const controller = new AbortController();
    const signal = AbortSignal.any([controller.signal, this.#end.signal]);
    this.#command = controller;
    this.#interrupted = false;
    try {
      const result = await work(this.#shell, { signal });
      this.#result(command, result);
      return result.quit ? "quit" : "done";
    } catch (error) {
      if (!(error instanceof CommandError || error instanceof KdError)) {
        throw error;
      }
      if (this.#options.json) {
        this.#line(JSON.stringify({ command, error: error.message }));
      } else this.#warn(error.message);
      return "failed";
    } finally {
      this.#command = undefined;
    }
  }

  #result(command: string | undefined, result: CommandResult): void {
    if (this.#options.json) {
      this.#line(JSON.stringify(
        command === undefined
          ? { event: "stop", ...(result.value as object) }
          : { command, result: result.value },
      ));
    } else if (result.text !== "") this.#line(plain(result.text));
  }

  #event(name: string, value: object, lines: readonly string[]): void {
    if (this.#options.json) {
      this.#line(JSON.stringify({ event: name, ...value }));
    } else for (const line of lines) this.#warn(line);
  }

  /** What the target prints goes out as it comes. */
  #print(text: string): void {
    if (this.#options.json) {
      this.#line(JSON.stringify({ event: "print", text }));
      return;
    }
    const shown = plain(text);
    this.#input?.hide();
    write(shown);
    this.#midLine = !shown.endsWith("\n");
    if (!this.#midLine) this.#input?.show();
  }

  #line(text: string): void {
    this.#input?.hide();
    write(`${this.#midLine ? "\n" : ""}${text}\n`);
    this.#midLine = false;
    this.#input?.show();
  }

  /** What is neither a result nor the target's: to stderr where a program reads the output. */
  #warn(text: string): void {
    if (this.#input && !this.#options.json) this.#line(text);
    else console.error(`syndbg: ${text}`);
  }
}

const encoder = new TextEncoder();

/** Writes all; when nobody reads any more the rest is dropped. */
function write(text: string): void {
  const data = encoder.encode(text);
  try {
    for (let at = 0; at < data.length;) {
      at += Deno.stdout.writeSync(data.subarray(at));
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
  }
}

/** Runs a debugger's console until it is done; returns the exit code. */
export async function runConsole(options: ConsoleOptions): Promise<number> {
  return await new Console(options).run();
}
