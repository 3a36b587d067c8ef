/**
 * Executes the same sequences on two machines and finds what differs.
 *
 * @module
 */
import type { SystemRegisters } from "../../../../core/backend.ts";
import { CaseLost, type CaseMachine } from "./case_machine.ts";
import { type Case, comparable, type Outcome } from "./cases.ts";
import { type Kind, sequences } from "./sequences.ts";
import { showCase } from "./show.ts";

/** Executes cases: what can be seen after each, as lines. */
export type Executor = (
  cases: readonly Case[],
  kind: Kind,
) => Promise<string[][]>;

function lines(test: Case, outcome: Outcome): string[] {
  const hex = (value: number | bigint): string => value.toString(16);
  const { vector, error, cr2, rip, flags, registers, bytes } = comparable(
    test,
    outcome,
  );
  return [
    `vector ${vector} error ${hex(error)}`,
    `cr2 ${hex(cr2)}`,
    `rip ${hex(rip)}`,
    `flags ${hex(flags)}`,
    ...registers.map((value, n) => `r${n} ${hex(value)}`),
    `memory ${bytes.toHex()}`,
  ];
}

function systemLines(registers: SystemRegisters): string[] {
  const { cr0, cr3, cr4, efer, gdt, idt } = registers;
  const segments = (["ds", "es", "fs", "gs", "tr", "ldt"] as const).map(
    (name) => {
      const { selector, base, limit, type, unusable } = registers[name];
      // What is hidden of a null selector is nobody's affair.
      const hidden = unusable || (selector & 0xfffc) === 0
        ? ""
        : ` ${base} ${limit} ${type}`;
      return `${name} ${selector}${hidden}`;
    },
  );
  return [
    `cr0 ${cr0} cr3 ${cr3} cr4 ${cr4} efer ${efer}`,
    `gdt ${gdt.base} ${gdt.limit} idt ${idt.base} ${idt.limit}`,
    ...segments,
  ];
}

/** Executes cases on a backend. */
export function onBackend(machine: CaseMachine): Executor {
  const one = (test: Case, kind: Kind): string[] => {
    try {
      const seen = lines(test, machine.run(test, kind === "kernel"));
      return kind === "kernel"
        ? [...seen, ...systemLines(machine.system())]
        : seen;
    } catch (error) {
      if (!(error instanceof CaseLost)) throw error;
      return [error.message];
    }
  };
  return (cases, kind) => Promise.resolve(cases.map((test) => one(test, kind)));
}

/** Executes user code on this machine's processor. */
export function onProcessor(
  run: (cases: readonly Case[]) => Promise<Outcome[]>,
): Executor {
  return async (cases) => {
    const outcomes = await run(cases);
    return cases.map((test, n) => lines(test, outcomes[n]!));
  };
}

/**
 * Compares two executors.
 *
 * @param count How many sequences.
 * @param excused Whether a difference is known, and not ours.
 * @returns Those that differ, as text.
 */
export async function compare(
  ours: Executor,
  theirs: Executor,
  kind: Kind,
  seed: string,
  count: number,
  excused: (here: string[], there: string[]) => boolean = () => false,
): Promise<string[]> {
  const cases = sequences(kind, seed).take(count).toArray();
  const seen = await ours(cases, kind);
  const expected = await theirs(cases, kind);
  return cases.flatMap((test, n) => {
    const [here, there] = [seen[n]!, expected[n]!];
    const different = here.flatMap((line, k) =>
      line === there[k] ? [] : [`  ${line}, not ${there[k]}`]
    );
    return different.length === 0 || excused(here, there)
      ? []
      : [[showCase(test), ...different].join("\n")];
  });
}
