import type { KdRegisters } from "../../hyperv/kd/context.ts";

/** A number in hexadecimal with leading zeros; 64-bit ones have a mark in the middle, as WinDbg's have. */
export function hex(value: bigint | number, digits = 16): string {
  const text = value.toString(16).padStart(digits, "0");
  return digits === 16 ? `${text.slice(0, 8)}\`${text.slice(8)}` : text;
}

/** A number as JSON output has it. */
export function json(value: bigint | number): string {
  return `0x${value.toString(16)}`;
}

/** Text of the target without what a terminal would obey: control characters become dots, but for the newline. */
export function plain(text: string): string {
  return text.replaceAll("\r", "").replace(
    // deno-lint-ignore no-control-regex
    /[\x00-\x08\x0b-\x1f\x7f-\x9f]/g,
    ".",
  );
}

/** A printable character of a byte or code unit, else a dot. */
export function printable(code: number): string {
  return code >= 0x20 && code < 0x7f ? String.fromCharCode(code) : ".";
}

/** Flags as WinDbg names them: bit, name when set, name when clear. */
const FLAGS = [
  [11, "ov", "nv"],
  [10, "dn", "up"],
  [9, "ei", "di"],
  [7, "ng", "pl"],
  [6, "zr", "nz"],
  [4, "ac", "na"],
  [2, "pe", "po"],
  [0, "cy", "nc"],
] as const;
const AMD64_ROWS = [
  ["rax", "rbx", "rcx"],
  ["rdx", "rsi", "rdi"],
  ["rip", "rsp", "rbp"],
  ["r8", "r9", "r10"],
  ["r11", "r12", "r13"],
  ["r14", "r15"],
];
const X86_ROWS = [
  ["eax", "ebx", "ecx", "edx", "esi", "edi"],
  ["eip", "esp", "ebp"],
];
const SELECTORS = ["cs", "ss", "ds", "es", "fs", "gs"];

/** The registers as WinDbg's `r` shows them. */
export function formatContext(context: KdRegisters): string {
  const long = context.has("rip");
  const rows = long ? AMD64_ROWS : X86_ROWS;
  const lines = rows.map((row) =>
    row.map((name) =>
      `${name.padStart(3)}=${
        context.get(name).toString(16).padStart(long ? 16 : 8, "0")
      }`
    ).join(" ")
  );
  const flags = context.get("eflags");
  const words = FLAGS.map(([bit, set, clear]) =>
    (flags >> BigInt(bit)) & 1n ? set : clear
  );
  lines.push(`iopl=${(flags >> 12n) & 3n}         ${words.join(" ")}`);
  const selectors = SELECTORS.map((name) =>
    `${name}=${context.get(name).toString(16).padStart(4, "0")}`
  );
  lines.push(
    `${selectors.join("  ")}             efl=${hex(flags, 8)}`,
  );
  return lines.join("\n");
}
