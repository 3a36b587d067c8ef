import type { WaitOptions } from "../../hyperv/kd/waiters.ts";
import * as memory from "./memory_commands.ts";
import * as run from "./run_commands.ts";
import { CommandError, type CommandResult, type DebugShell } from "./shell.ts";
import * as state from "./state_commands.ts";

/** A command: what it is for, and what it does. */
interface Command {
  usage: string;
  run: (
    shell: DebugShell,
    name: string,
    text: string,
    wait: WaitOptions,
  ) => Promise<CommandResult>;
}

const DUMP = "[ADDRESS] [L COUNT]";

const COMMANDS: Readonly<Record<string, Command>> = {
  g: { usage: "[ADDRESS]  go, until ADDRESS", run: run.go },
  gh: { usage: "go, exception handled", run: run.go },
  gn: { usage: "go, exception not handled", run: run.go },
  t: { usage: "[COUNT]  execute an instruction", run: run.step },
  p: {
    usage: "[COUNT]  execute an instruction with what it calls",
    run: run.step,
  },
  ".break": { usage: "stop the target", run: run.breakIn },
  ".runfor": { usage: "MILLISECONDS  go for that time", run: run.runFor },
  r: { usage: "[NAME[=VALUE]]  registers", run: state.registers },
  db: { usage: `${DUMP}  dump bytes`, run: memory.dumpNumbers },
  dw: { usage: `${DUMP}  dump 16-bit numbers`, run: memory.dumpNumbers },
  dd: { usage: `${DUMP}  dump 32-bit numbers`, run: memory.dumpNumbers },
  dq: { usage: `${DUMP}  dump 64-bit numbers`, run: memory.dumpNumbers },
  dps: {
    usage: `${DUMP}  dump pointers with symbols`,
    run: memory.dumpPointers,
  },
  da: { usage: `${DUMP}  dump text`, run: memory.dumpText },
  du: { usage: `${DUMP}  dump UTF-16 text`, run: memory.dumpText },
  "!db": { usage: `${DUMP}  dump physical memory`, run: memory.dumpNumbers },
  "!dw": { usage: `${DUMP}  dump physical memory`, run: memory.dumpNumbers },
  "!dd": { usage: `${DUMP}  dump physical memory`, run: memory.dumpNumbers },
  "!dq": { usage: `${DUMP}  dump physical memory`, run: memory.dumpNumbers },
  eb: { usage: "ADDRESS VALUE...  enter bytes", run: memory.enterNumbers },
  ew: {
    usage: "ADDRESS VALUE...  enter 16-bit numbers",
    run: memory.enterNumbers,
  },
  ed: {
    usage: "ADDRESS VALUE...  enter 32-bit numbers",
    run: memory.enterNumbers,
  },
  eq: {
    usage: "ADDRESS VALUE...  enter 64-bit numbers",
    run: memory.enterNumbers,
  },
  "!eb": {
    usage: "ADDRESS VALUE...  enter physical bytes",
    run: memory.enterNumbers,
  },
  "!ed": {
    usage: "ADDRESS VALUE...  enter physical numbers",
    run: memory.enterNumbers,
  },
  s: {
    usage: "ADDRESS L LENGTH BYTE...  search for bytes",
    run: memory.searchBytes,
  },
  u: { usage: `${DUMP}  disassemble`, run: state.unassemble },
  k: { usage: "[COUNT]  call stack", run: state.stack },
  bp: { usage: "[ADDRESS]  set a breakpoint", run: run.setBreakpoint },
  bl: { usage: "list breakpoints", run: run.listBreakpoints },
  bc: { usage: "NUMBER...|*  clear breakpoints", run: run.changeBreakpoints },
  bd: { usage: "NUMBER...|*  disable breakpoints", run: run.changeBreakpoints },
  be: { usage: "NUMBER...|*  enable breakpoints", run: run.changeBreakpoints },
  "?": { usage: "EXPRESSION  evaluate", run: state.showValue },
  rdmsr: { usage: "NUMBER  read an MSR", run: state.readMsr },
  wrmsr: { usage: "NUMBER VALUE  write an MSR", run: state.writeMsr },
  ".sym": {
    usage: "FILE [OFFSET]  load symbols of an ELF or map file",
    run: state.loadSymbols,
  },
  x: { usage: "PATTERN  list symbols", run: state.listSymbols },
  ln: { usage: "ADDRESS  the symbol near it", run: state.nearSymbol },
  lm: { usage: "list modules", run: state.listModules },
  vertarget: { usage: "what the target is", run: state.showTarget },
  "~": { usage: "NUMBERs  change to a processor", run: run.switchProcessor },
  ".reboot": { usage: "restart the target", run: run.reboot },
  ".crash": {
    usage: "have the target stop with a bug check",
    run: run.bugCheck,
  },
  ".bugcheck": { usage: "the same", run: run.bugCheck },
  ".help": { usage: "print this", run: help },
  q: { usage: "let the target go on and end", run: run.quit },
};

/** Names of all commands. */
export const COMMAND_NAMES: readonly string[] = Object.keys(COMMANDS);

/** Text of all commands, a line each. */
export function commandHelp(): string {
  return Object.entries(COMMANDS)
    .map(([name, { usage }]) => `${name.padEnd(9)} ${usage}`).join("\n");
}

function help(): Promise<CommandResult> {
  return Promise.resolve({ text: commandHelp(), value: COMMAND_NAMES });
}

/** Commands of a line, which `;` parts; in quotes it does not. */
export function splitCommands(line: string): string[] {
  const parts = line.match(/(?:"[^"]*"?|[^;"])+/g) ?? [];
  return parts.map((part) => part.trim()).filter((part) => part !== "");
}

/**
 * Runs one command.
 *
 * @throws {CommandError} If there is none such or it cannot be used so.
 * @throws {KdError} If the target cannot be reached or refuses.
 */
export async function runCommand(
  shell: DebugShell,
  line: string,
  wait: WaitOptions = {},
): Promise<CommandResult> {
  const [, name = "", rest = ""] = /^([?~]|[!.]?[A-Za-z]+)\s*(.*)$/s.exec(
    line.trim(),
  ) ?? [];
  const lower = name.toLowerCase();
  const command = Object.hasOwn(COMMANDS, lower) ? COMMANDS[lower] : undefined;
  if (command === undefined) {
    throw new CommandError(
      `Cannot run ${line.trim()}: unknown command (see .help)`,
    );
  }
  return await command.run(shell, lower, rest.trim(), wait);
}
