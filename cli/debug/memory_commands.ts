import { hex, json, printable } from "./format.ts";
import { CommandError, type CommandResult, type DebugShell } from "./shell.ts";

/** Bytes that a dump shows if it is not told how many. */
const DEFAULT_BYTES = 128;
/** Most bytes of a dump. */
const MAX_BYTES = 0x10_0000;
/** Longest text that `da` and `du` look for. */
const MAX_TEXT = 0x1000;
const BYTES_PER_LINE = 16;

/** Bytes of an element of `db`, `dw` and so on. */
const WIDTHS: Readonly<Record<string, number>> = { b: 1, w: 2, d: 4, q: 8 };

/** An address and a number of elements. */
export interface Range {
  address: bigint;
  count: number | undefined;
}

/** Reads `ADDRESS [L COUNT]`; `next` is where the last one ended. */
export async function parseRange(
  shell: DebugShell,
  text: string,
  next: bigint | undefined,
): Promise<Range> {
  const [, expression = "", length] =
    /^(?=[lL]\s*\d)()[lL]\s*(\S+)$/.exec(text.trim()) ??
      /^(.*?)(?:\s+[lL]\s*(\S+))?$/s.exec(text.trim())!;
  const address = expression === ""
    ? next ?? shell.session.stop?.programCounter
    : await shell.evaluate(expression);
  if (address === undefined) throw new CommandError("Cannot dump: no address");
  if (length === undefined) return { address, count: undefined };
  const count = Number(await shell.evaluate(length));
  if (!(count > 0 && count <= MAX_BYTES)) {
    throw new CommandError(`Cannot use L${length}: must be 1 to 100000`);
  }
  return { address, count };
}

async function readMemory(
  shell: DebugShell,
  physical: boolean,
  address: bigint,
  length: number,
): Promise<Uint8Array> {
  if (length > MAX_BYTES) {
    throw new CommandError(`Cannot dump: ${length} bytes at once`);
  }
  return physical
    ? await shell.session.readPhysical(address, length)
    : await shell.session.readVirtual(address, length);
}

/** Numbers of `width` bytes; a part at the end does not count. */
function numbers(bytes: Uint8Array, width: number): bigint[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const values: bigint[] = [];
  for (let at = 0; at + width <= bytes.length; at += width) {
    values.push(
      width === 8 ? view.getBigUint64(at, true) : BigInt(
        width === 4
          ? view.getUint32(at, true)
          : width === 2
          ? view.getUint16(at, true)
          : view.getUint8(at),
      ),
    );
  }
  return values;
}

function byteLine(bytes: Uint8Array): string {
  const words = [...bytes].map((byte) => hex(byte, 2));
  const left = words.slice(0, 8).join(" ");
  const right = words.slice(8).join(" ");
  const both = right === "" ? left : `${left}-${right}`;
  const text = [...bytes].map(printable).join("");
  return `${both.padEnd(BYTES_PER_LINE * 3 - 1)}  ${text}`;
}

/** `db`, `dw`, `dd`, `dq`, and with `!` before it of physical memory. */
export async function dumpNumbers(
  shell: DebugShell,
  name: string,
  text: string,
): Promise<CommandResult> {
  const physical = name.startsWith("!");
  const width = WIDTHS[name.at(-1)!]!;
  const { address, count } = await parseRange(shell, text, shell.dumpAddress);
  const length = count === undefined ? DEFAULT_BYTES : count * width;
  const bytes = await readMemory(shell, physical, address, length);
  shell.dumpAddress = address + BigInt(bytes.length);
  const digits = physical ? 16 : await shell.digits();
  const values = numbers(bytes, width);
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += BYTES_PER_LINE) {
    const start = `${hex(address + BigInt(at), digits)}  `;
    const line = bytes.subarray(at, at + BYTES_PER_LINE);
    const part = values.slice(at / width, (at + BYTES_PER_LINE) / width);
    lines.push(
      start +
        (width === 1
          ? byteLine(line)
          : part.map((value) => hex(value, width * 2)).join(" ")),
    );
  }
  if (bytes.length < length) {
    lines.push(`${hex(address + BigInt(bytes.length), digits)}  ??`);
  }
  return {
    text: lines.join("\n"),
    value: {
      address: json(address),
      ...(width === 1
        ? { bytes: bytes.toHex() }
        : { values: values.map(json) }),
    },
  };
}

/** `da` and `du`: text up to its zero, of bytes or of UTF-16. */
export async function dumpText(
  shell: DebugShell,
  name: string,
  text: string,
): Promise<CommandResult> {
  const width = name === "du" ? 2 : 1;
  const { address, count } = await parseRange(shell, text, shell.dumpAddress);
  const bytes = await readMemory(
    shell,
    false,
    address,
    (count ?? MAX_TEXT / width) * width,
  );
  const codes = numbers(bytes, width).map(Number);
  const end = codes.indexOf(0);
  const shown = end < 0 ? codes : codes.slice(0, end);
  shell.dumpAddress = address + BigInt((shown.length + 1) * width);
  const found = shown.map(printable).join("");
  return {
    text: `${hex(address, await shell.digits())}  "${found}"`,
    value: { address: json(address), text: found },
  };
}

/** `dps`: pointers with their symbols. */
export async function dumpPointers(
  shell: DebugShell,
  _name: string,
  text: string,
): Promise<CommandResult> {
  const digits = await shell.digits();
  const width = digits / 2;
  const { address, count } = await parseRange(shell, text, shell.dumpAddress);
  const length = count === undefined ? DEFAULT_BYTES : count * width;
  const bytes = await readMemory(shell, false, address, length);
  shell.dumpAddress = address + BigInt(bytes.length);
  const rows = numbers(bytes, width).map((value, n) => ({
    at: address + BigInt(n * width),
    value,
    symbol: shell.symbolAt(value),
  }));
  return {
    text: rows.map(({ at, value, symbol = "" }) =>
      `${hex(at, digits)}  ${hex(value, digits)} ${symbol}`.trimEnd()
    ).join("\n"),
    value: {
      address: json(address),
      values: rows.map(({ value, symbol }) => ({
        value: json(value),
        ...(symbol && { symbol }),
      })),
    },
  };
}

/** `eb`, `ew`, `ed`, `eq ADDRESS VALUE...`, and with `!` before it of physical memory. */
export async function enterNumbers(
  shell: DebugShell,
  name: string,
  text: string,
): Promise<CommandResult> {
  const width = WIDTHS[name.at(-1)!]!;
  const [where, ...words] = text.trim().split(/\s+/);
  if (!where || words.length === 0) {
    throw new CommandError(`Cannot do ${name}: give an address and values`);
  }
  const address = await shell.evaluate(where);
  const bytes = new Uint8Array(words.length * width);
  const view = new DataView(bytes.buffer);
  for (const [n, word] of words.entries()) {
    const value = await shell.evaluate(word);
    if (width < 8 && value >= 1n << BigInt(width * 8)) {
      throw new CommandError(`Cannot do ${name}: ${word} has more bits`);
    }
    for (let byte = 0; byte < width; byte++) {
      view.setUint8(
        n * width + byte,
        Number((value >> BigInt(byte * 8)) & 255n),
      );
    }
  }
  if (name.startsWith("!")) await shell.session.writePhysical(address, bytes);
  else await shell.session.writeVirtual(address, bytes);
  return {
    text: "",
    value: { address: json(address), bytes: bytes.toHex() },
  };
}

/** `s -b ADDRESS L LENGTH BYTE...`: looks for bytes. */
export async function searchBytes(
  shell: DebugShell,
  _name: string,
  text: string,
): Promise<CommandResult> {
  const [, where, length, rest] =
    /^(?:-b\s+)?(\S+)\s+[lL]\s*(\S+)\s+(.+)$/.exec(text.trim()) ?? [];
  if (rest === undefined) {
    throw new CommandError(
      "Cannot search: give an address, L, length and bytes",
    );
  }
  const address = await shell.evaluate(where!);
  const size = await shell.evaluate(length!);
  const pattern: number[] = [];
  for (const word of rest.split(/\s+/)) {
    pattern.push(Number(await shell.evaluate(word) & 255n));
  }
  const found = await shell.session.search(
    address,
    size,
    new Uint8Array(pattern),
  );
  return {
    text: found === undefined ? "" : hex(found, await shell.digits()),
    value: { found: found === undefined ? null : json(found) },
  };
}
