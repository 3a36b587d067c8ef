/**
 * The hypercalls that act on other virtual processors: TLB flushes (TLFS 9.4) and inter-processor
 * interrupts (TLFS 10.5), with the checks of Linux arch/x86/kvm/hyperv.c. Input in memory and in
 * registers, XMM included, has one layout, so both are read alike.
 *
 * @module
 */
import type { GuestMemory } from "../core/guest_memory.ts";
import type { CallInput } from "./call_input.ts";
import { FlushFlag, HvCall, HvStatus, VpSetFormat } from "./defs/hypercall.ts";
import { FIRST_VECTOR } from "./defs/synic.ts";
import { countBits, ProcessorSet } from "./processor_set.ts";

/** What these calls act on. */
export interface ProcessorCallContext {
  memory: GuestMemory;
  /** Virtual processors in the partition. */
  vcpus: number;
  /** Flushes a processor's TLB. */
  flushTlb: (vcpu: number) => void;
  /** Interrupts a processor; absent where there are no local APICs. */
  interrupt: ((vcpu: number, vector: number) => void) | undefined;
}

// Words of a flush's input.
const FLUSH_FLAGS = 1;
const FLUSH_MASK = 2;
const FLUSH_SET = 2;
/** Words before the processors' banks, or before the list of addresses. */
const FLUSH_HEAD = 3;
const FLUSH_EX_HEAD = 4;

/**
 * The four flush calls. A processor's TLB is flushed whole, which is allowed to do more than was asked
 * for: the address space and the list of addresses only have to be there.
 */
export function flush(call: CallInput, context: ProcessorCallContext): number {
  const processors = call.code >= HvCall.FlushVaSpaceEx
    ? flushedSet(call, context.memory)
    : flushedMask(call, context.memory);
  if (processors === undefined) return HvStatus.InvalidHypercallInput;
  for (let vcpu = 0; vcpu < context.vcpus; vcpu++) {
    if (processors.has(vcpu)) context.flushTlb(vcpu);
  }
  return HvStatus.Success;
}

function flushedMask(
  call: CallInput,
  memory: GuestMemory,
): ProcessorSet | undefined {
  if (!call.has(memory, FLUSH_HEAD + call.repCount)) return undefined;
  const flags = call.word(memory, FLUSH_FLAGS);
  const mask = call.word(memory, FLUSH_MASK);
  // Windows Server 2012 means all by none.
  return (flags & FlushFlag.AllProcessors) !== 0n || mask === 0n
    ? ProcessorSet.all
    : ProcessorSet.mask(mask);
}

function flushedSet(
  call: CallInput,
  memory: GuestMemory,
): ProcessorSet | undefined {
  if (!call.has(memory, FLUSH_EX_HEAD)) return undefined;
  const format = call.word(memory, FLUSH_SET);
  const valid = call.word(memory, FLUSH_SET + 1);
  if (call.variable !== countBits(valid)) return undefined;
  if (!call.has(memory, FLUSH_EX_HEAD + call.variable + call.repCount)) {
    return undefined;
  }
  return format === VpSetFormat.Sparse
    ? ProcessorSet.sparse(call, memory, FLUSH_EX_HEAD, valid)
    : ProcessorSet.all;
}

const VECTOR_MAX = 255;
const WORD = 0xffff_ffffn;
/** Words before the banks of an interrupt's processors. */
const IPI_EX_HEAD = 3;

/** HvCallSendSyntheticClusterIpi and its form with processor sets. */
export function sendIpi(
  call: CallInput,
  context: ProcessorCallContext,
): number {
  const { memory, interrupt } = context;
  if (interrupt === undefined) return HvStatus.InvalidHypercallInput;
  const extended = call.code === HvCall.SendIpiEx;
  if (!call.has(memory, extended ? IPI_EX_HEAD : 2)) {
    return HvStatus.InvalidHypercallInput;
  }
  const head = call.word(memory, 0);
  // Behind the vector 32 bits are reserved; only here are they looked at.
  if (!extended && call.fast && head > WORD) {
    return HvStatus.InvalidHypercallInput;
  }
  let processors: ProcessorSet | undefined;
  if (!extended) processors = ProcessorSet.mask(call.word(memory, 1));
  else {
    const format = call.word(memory, 1);
    const valid = call.word(memory, 2);
    if (call.variable !== countBits(valid)) {
      return HvStatus.InvalidHypercallInput;
    }
    if (format === VpSetFormat.All) processors = ProcessorSet.all;
    // Nobody is to be interrupted, with whatever vector.
    else if (valid === 0n) return HvStatus.Success;
    else processors = ProcessorSet.sparse(call, memory, IPI_EX_HEAD, valid);
  }
  const vector = Number(head & WORD);
  if (
    processors === undefined || vector < FIRST_VECTOR || vector > VECTOR_MAX
  ) return HvStatus.InvalidHypercallInput;
  for (let vcpu = 0; vcpu < context.vcpus; vcpu++) {
    if (processors.has(vcpu)) interrupt(vcpu, vector);
  }
  return HvStatus.Success;
}
