import { KdSession } from "../../../hyperv/kd/session.ts";
import { memoryPair } from "../../../hyperv/transports/memory_pair.ts";
import { readMapSymbols } from "../../../hyperv/kd/symbols.ts";
import { runCommand, splitCommands } from "../../../cli/debug/commands.ts";
import type { Disassembler } from "../../../cli/debug/disassembler.ts";
import { type CommandResult, DebugShell } from "../../../cli/debug/shell.ts";
import { FakeTarget } from "../../hyperv/kd/_fake_target.ts";
import { BASE, MAP, PROGRAM } from "../../hyperv/kd/_program.ts";

const WAIT = { timeout: 10_000 };

/** Knows the instructions of {@linkcode PROGRAM}. */
const DISASSEMBLER: Disassembler = {
  decode: (code, address) => {
    const simple: Record<number, string> = {
      0x55: "push rbp",
      0x5d: "pop rbp",
      0x90: "nop",
      0xc3: "ret",
    };
    const [first = 0] = code;
    const text = simple[first];
    if (text) return { length: 1, text, target: undefined };
    if (first === 0xe8) {
      const target = address + 5n + BigInt(code[1]!);
      return { length: 5, text: `call ${target.toString(16)}h`, target };
    }
    return undefined;
  },
};

/** Runs commands on a target that has broken in at its first instruction; returns what each said. */
export async function runCommands(
  line: string,
  prepare: (target: FakeTarget) => void = () => {},
): Promise<CommandResult[]> {
  const [wire, guest] = memoryPair();
  const session = await KdSession.open({ transport: wire, key: "1.2.3.4" });
  const target = await FakeTarget.start({
    transport: guest,
    key: "1.2.3.4",
    base: BASE,
  });
  target.cpu.memory.set(PROGRAM);
  prepare(target);
  const shell = new DebugShell(session, () => Promise.resolve(DISASSEMBLER));
  shell.symbols.add(readMapSymbols(MAP));
  try {
    await shell.breakIn(WAIT);
    await shell.setRegister("rip", BASE);
    const results: CommandResult[] = [];
    for (const command of splitCommands(line)) {
      results.push(await runCommand(shell, command, WAIT));
    }
    return results;
  } finally {
    session.close();
    target.close();
  }
}

/** What the commands print, as lines. */
export async function printed(
  line: string,
  prepare?: (target: FakeTarget) => void,
): Promise<string[]> {
  const results = await runCommands(line, prepare);
  return results.flatMap(({ text }) => text === "" ? [] : text.split("\n"));
}

/** What they give a program. */
export async function values(line: string): Promise<unknown[]> {
  return (await runCommands(line)).map(({ value }) => value);
}
