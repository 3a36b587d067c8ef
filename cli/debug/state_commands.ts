import { walkStack } from "../../hyperv/kd/stack.ts";
import { formatContext, hex, json } from "./format.ts";
import { parseRange } from "./memory_commands.ts";
import {
  CommandError,
  type CommandResult,
  type DebugShell,
  type SymbolFile,
} from "./shell.ts";

/** Instructions that `u` shows if it is not told how many. */
const DEFAULT_INSTRUCTIONS = 8;
const MAX_INSTRUCTIONS = 1000;
const DEFAULT_FRAMES = 32;
const MAX_FRAMES = 1000;

/** `r`, `r NAME[,NAME...]`, `r NAME=EXPRESSION`. */
export async function registers(
  shell: DebugShell,
  _name: string,
  text: string,
): Promise<CommandResult> {
  if (text === "") {
    const context = await shell.context();
    const pc = context.get(context.has("rip") ? "rip" : "eip");
    const { text: where } = await shell.where(pc);
    const names = context.names.filter((name) => name !== "contextFlags");
    return {
      text: `${formatContext(context)}\n${where}`,
      value: Object.fromEntries(
        names.map((name) => [name, json(context.get(name))]),
      ),
    };
  }
  const [, target, expression] = /^@?([\w$]+)\s*=\s*(.+)$/.exec(text) ?? [];
  if (target !== undefined) {
    const name = target.toLowerCase();
    const value = await shell.evaluate(expression!);
    try {
      await shell.setRegister(name, value);
    } catch (error) {
      if (error instanceof RangeError) throw new CommandError(error.message);
      throw error;
    }
    return { text: "", value: { [name]: json(value) } };
  }
  const lines: string[] = [];
  const found: Record<string, string> = {};
  for (const word of text.split(/[\s,]+/)) {
    const name = word.replace(/^@/, "").toLowerCase();
    const register = await shell.register(name);
    if (register === undefined) {
      throw new CommandError(
        `Cannot show register ${word}: there is none such`,
      );
    }
    const { value, width } = register;
    lines.push(`${name}=${value.toString(16).padStart(width / 4, "0")}`);
    found[name] = json(value);
  }
  return { text: lines.join("\n"), value: found };
}

/** `u [ADDRESS] [L COUNT]`. */
export async function unassemble(
  shell: DebugShell,
  _name: string,
  text: string,
): Promise<CommandResult> {
  const { address, count = DEFAULT_INSTRUCTIONS } = await parseRange(
    shell,
    text,
    shell.codeAddress,
  );
  if (await shell.disassembler() === undefined) {
    throw new CommandError(
      "Cannot disassemble: npm:iced-x86 could not be loaded",
    );
  }
  const found = await shell.instructions(
    address,
    Math.min(count, MAX_INSTRUCTIONS),
  );
  const digits = await shell.digits();
  const lines: string[] = [];
  for (const instruction of found) {
    const near = shell.symbols.near(instruction.address);
    if (near?.offset === 0n || lines.length === 0) {
      const symbol = shell.symbolAt(instruction.address);
      if (symbol) lines.push(`${symbol}:`);
    }
    lines.push(shell.instructionText(instruction, digits));
  }
  const last = found.at(-1);
  if (last) shell.codeAddress = last.address + BigInt(last.bytes.length);
  return {
    text: lines.join("\n"),
    value: found.map(({ address, bytes, code }) => ({
      address: json(address),
      bytes: bytes.toHex(),
      ...(code && { text: code.text }),
    })),
  };
}

/** `k [COUNT]`. */
export async function stack(
  shell: DebugShell,
  _name: string,
  text: string,
): Promise<CommandResult> {
  const limit = text === ""
    ? DEFAULT_FRAMES
    : Math.min(Number(await shell.evaluate(text)), MAX_FRAMES);
  const frames = await walkStack(shell.session, await shell.context(), limit);
  const digits = await shell.digits();
  const width = digits === 16 ? 17 : 8;
  const lines = [
    ` # ${"Child-SP".padEnd(width)} ${"RetAddr".padEnd(width)} Call Site`,
    ...frames.map(({ stack, address, by }, n) => {
      const back = frames[n + 1]?.address;
      const site = shell.symbolAt(address) ?? json(address);
      return `${hex(n, 2)} ${hex(stack, digits)} ${
        back === undefined ? " ".repeat(width) : hex(back, digits)
      } ${site}${by === "scan" ? " (guessed)" : ""}`;
    }),
  ];
  return {
    text: lines.join("\n"),
    value: frames.map(({ stack, address, by }) => {
      const symbol = shell.symbolAt(address);
      return {
        stack: json(stack),
        address: json(address),
        by,
        ...(symbol && { symbol }),
      };
    }),
  };
}

/** `? EXPRESSION`. */
export async function showValue(
  shell: DebugShell,
  _name: string,
  text: string,
): Promise<CommandResult> {
  const value = await shell.evaluate(text);
  return {
    text: `Evaluate expression: ${BigInt.asIntN(64, value)} = ${hex(value)}`,
    value: json(value),
  };
}

function msrNumber(value: bigint, text: string): number {
  if (value >= 2n ** 32n) {
    throw new CommandError(`Cannot use MSR ${text}: it has 32 bits`);
  }
  return Number(value);
}

/** `rdmsr NUMBER`. */
export async function readMsr(
  shell: DebugShell,
  _name: string,
  text: string,
): Promise<CommandResult> {
  const msr = msrNumber(await shell.evaluate(text), text);
  const value = await shell.session.readMsr(msr);
  return {
    text: `msr[${msr.toString(16)}] = ${hex(value)}`,
    value: { msr: json(msr), value: json(value) },
  };
}

/** `wrmsr NUMBER VALUE`. */
export async function writeMsr(
  shell: DebugShell,
  _name: string,
  text: string,
): Promise<CommandResult> {
  const [number = "", ...rest] = text.split(/\s+/);
  const msr = msrNumber(await shell.evaluate(number), number);
  const value = await shell.evaluate(rest.join(" "));
  await shell.session.writeMsr(msr, value);
  return { text: "", value: { msr: json(msr), value: json(value) } };
}

/** `vertarget`. */
export async function showTarget(shell: DebugShell): Promise<CommandResult> {
  const version = await shell.session.version();
  const { processors } = shell.session.stop!;
  const text = [
    `Version ${version.major}.${version.minor}, machine ${
      json(version.machine)
    }, ${processors} processor(s), protocol ${version.protocol}`,
    `Kernel base = ${hex(version.kernelBase)} PsLoadedModuleList = ${
      hex(version.loadedModuleList)
    }`,
  ].join("\n");
  const value = Object.fromEntries(
    Object.entries(version).map(([name, number]) => [name, json(number)]),
  );
  return { text, value: { ...value, processors } };
}

/** `lm`. */
export async function listModules(shell: DebugShell): Promise<CommandResult> {
  const digits = await shell.digits();
  const width = digits === 16 ? 17 : 8;
  const lines = [
    `${"start".padEnd(width)} ${"end".padEnd(width)} module name`,
    ...shell.modules.map(({ name, base, size }) =>
      `${hex(base, digits)} ${hex(base + BigInt(size), digits)} ${name}`
    ),
  ];
  return {
    text: lines.join("\n"),
    value: shell.modules.map(({ name, base, size }) => ({
      name,
      base: json(base),
      size: json(size),
    })),
  };
}

/** `x PATTERN`. */
export async function listSymbols(
  shell: DebugShell,
  _name: string,
  text: string,
): Promise<CommandResult> {
  const digits = await shell.digits();
  const found = shell.symbols.match(text.replace(/^[^!]*!/, "") || "*");
  return {
    text: found.map(({ name, address }) => `${hex(address, digits)} ${name}`)
      .join("\n"),
    value: found.map(({ name, address }) => ({ name, address: json(address) })),
  };
}

/** `ln ADDRESS`. */
export async function nearSymbol(
  shell: DebugShell,
  _name: string,
  text: string,
): Promise<CommandResult> {
  const address = await shell.evaluate(text);
  const symbol = shell.symbolAt(address);
  return {
    text: symbol === undefined
      ? "no symbol is near"
      : `(${hex(address, await shell.digits())}) ${symbol}`,
    value: { address: json(address), symbol: symbol ?? null },
  };
}

async function readFile(path: string): Promise<SymbolFile> {
  try {
    const data = await Deno.readFile(path);
    return { name: path.replace(/^.*\//, ""), data };
  } catch (error) {
    throw new CommandError(`Cannot read ${path}: ${(error as Error).message}`);
  }
}

/** `.sym FILE [OFFSET]`. */
export async function loadSymbols(
  shell: DebugShell,
  _name: string,
  text: string,
): Promise<CommandResult> {
  const [, path, offset] = /^("[^"]+"|\S+)(?:\s+(.+))?$/.exec(text) ?? [];
  if (path === undefined) throw new CommandError("Cannot do .sym: give a file");
  const count = shell.addSymbols(
    await readFile(path.replace(/^"(.*)"$/, "$1")),
    offset === undefined ? 0n : await shell.evaluate(offset),
  );
  return { text: `${count} symbols`, value: { symbols: count } };
}
