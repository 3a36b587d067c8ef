import type { CpuidEntry } from "../core/backend.ts";
import {
  HvAccess,
  HvFeature,
  HvLeaf,
  HvPrivilege,
  HvRecommend,
  STACK_DEBUGGING,
} from "../hyperv/defs/cpuid.ts";

type Register = "eax" | "ebx" | "ecx" | "edx";
const REGISTERS: readonly Register[] = ["eax", "ebx", "ecx", "edx"];

/** Bits that have a name, by leaf and register. */
const BIT_NAMES: Record<number, Partial<Record<Register, object>>> = {
  [HvLeaf.Features]: { eax: HvAccess, ebx: HvPrivilege, edx: HvFeature },
  [HvLeaf.Recommendations]: { eax: HvRecommend },
  [HvLeaf.StackProperties]: { eax: { Debugging: STACK_DEBUGGING } },
};

const TITLES: Record<number, string> = {
  0: "highest basic leaf, vendor",
  1: "signature and features",
  7: "extended features",
  0xd: "extended state",
  0x8000_0000: "highest extended leaf, vendor",
  0x8000_0001: "extended signature and features",
  0x8000_0002: "name",
  0x8000_0003: "name",
  0x8000_0004: "name",
  0x8000_0007: "power management",
  0x8000_0008: "address sizes",
  ...Object.fromEntries(
    Object.entries(HvLeaf).map(([name, leaf]) => [leaf, words(name)]),
  ),
};

/** Leaves whose registers hold characters, and which of them in which order. */
const TEXT_LEAVES: Record<number, readonly Register[]> = {
  0: ["ebx", "edx", "ecx"],
  0x8000_0000: ["ebx", "edx", "ecx"],
  0x8000_0002: REGISTERS,
  0x8000_0003: REGISTERS,
  0x8000_0004: REGISTERS,
  [HvLeaf.Vendor]: ["ebx", "ecx", "edx"],
  [HvLeaf.Interface]: ["eax"],
  [HvLeaf.StackVendor]: ["ebx", "ecx", "edx"],
  [HvLeaf.StackInterface]: ["eax"],
};

/** `TimeRefCount` as `time ref count`. */
function words(name: string): string {
  return name.replace(/(?!^)([A-Z])/g, " $1").toLowerCase();
}

function characters(values: readonly number[]): string {
  const bytes = values.flatMap((value) => [
    value & 0xff,
    value >>> 8 & 0xff,
    value >>> 16 & 0xff,
    value >>> 24,
  ]);
  return String.fromCharCode(...bytes)
    .replace(/[^\x20-\x7e]/g, "");
}

function bitNames(value: number, names: object): string[] {
  return Object.entries(names as Record<string, number>)
    .filter(([, bit]) => (value & bit) !== 0)
    .map(([name]) => words(name));
}

/** One leaf as a line of numbers, and lines that decode them. */
export function formatLeaf(entry: CpuidEntry): string {
  const subleaf = entry.subleaf === undefined ? "" : `.${entry.subleaf}`;
  const numbers = REGISTERS
    .map((name) =>
      `${name} ${(entry[name] >>> 0).toString(16).padStart(8, "0")}`
    )
    .join(" ");
  const lines = [
    `0x${
      `${entry.leaf.toString(16).padStart(8, "0")}${subleaf}`.padEnd(10)
    } ${numbers}  ${TITLES[entry.leaf] ?? ""}`.trimEnd(),
  ];
  const text = TEXT_LEAVES[entry.leaf];
  if (text !== undefined) {
    lines.push(`    "${characters(text.map((name) => entry[name]))}"`);
  }
  for (const [name, bits] of Object.entries(BIT_NAMES[entry.leaf] ?? {})) {
    const set = bitNames(entry[name as Register], bits);
    lines.push(`    ${name}: ${set.length > 0 ? set.join(", ") : "none"}`);
  }
  return lines.join("\n");
}
