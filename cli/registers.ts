import type { Registers, Segment, Vcpu } from "../core/backend.ts";

function hex(value: bigint, digits = 16): string {
  return value.toString(16).padStart(digits, "0");
}

function segment(name: string, value: Segment): string {
  const kind = value.unusable
    ? "unusable"
    : `type ${value.type} dpl ${value.dpl} ${value.s ? "" : "system "}${
      value.l ? "64-bit" : value.db ? "32-bit" : "16-bit"
    }`;
  return `${name.padEnd(4)} ${
    value.selector.toString(16).padStart(4, "0")
  } base ${hex(value.base)} limit ${hex(BigInt(value.limit), 8)} ${kind}`;
}

/** The state of a vCPU as a person reads it. */
export function formatRegisters(vcpu: Vcpu): string {
  const general: Registers = vcpu.getRegisters();
  const names = Object.keys(general) as (keyof Registers)[];
  const lines: string[] = [];
  for (let at = 0; at < names.length; at += 3) {
    lines.push(
      names.slice(at, at + 3)
        .map((name) => `${name.padEnd(6)} ${hex(general[name])}`)
        .join("  "),
    );
  }
  const system = vcpu.getSystemRegisters();
  for (
    const name of ["cs", "ss", "ds", "es", "fs", "gs", "tr", "ldt"] as const
  ) lines.push(segment(name, system[name]));
  for (const name of ["gdt", "idt"] as const) {
    lines.push(
      `${name}  base ${hex(system[name].base)} limit ${
        hex(BigInt(system[name].limit), 4)
      }`,
    );
  }
  lines.push(
    (["cr0", "cr2", "cr3", "cr4", "efer"] as const)
      .map((name) => `${name} ${hex(system[name], 8)}`).join("  "),
  );
  return lines.join("\n");
}
