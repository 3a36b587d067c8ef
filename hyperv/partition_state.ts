import { PARTITION_WORDS } from "./partition_msrs.ts";
import { isSynDbg, type SynDbgState } from "./syndbg.ts";
import { isProcessor, type ProcessorState } from "./virtual_processor.ts";
import { isWords } from "./words.ts";

/** A partition's state as plain data. */
export interface PartitionState {
  /** Name and version of the layout. */
  format: string;
  /** Partition-wide registers, low and high words. */
  words: number[];
  /** Each virtual processor. */
  processors: ProcessorState[];
  /** Reference time in units of 100 ns. */
  referenceTime: bigint;
  /** TSC ticks a second, as the guest was told. */
  tscFrequency: number;
  /** The debug device, where there is one. */
  syndbg: SynDbgState | undefined;
}

/** Format of the state that is written. */
export const FORMAT = "syndbg-partition-2";

/**
 * Looks at state from elsewhere.
 *
 * @param vcpus Virtual processors of the partition that is to take it.
 * @throws {TypeError} If it is not the state of such a partition.
 */
export function checkState(state: PartitionState, vcpus: number): void {
  const { format, words, processors, referenceTime, tscFrequency, syndbg } =
    state;
  if (
    format !== FORMAT || !isWords(words, PARTITION_WORDS) ||
    typeof referenceTime !== "bigint" || !Number.isFinite(tscFrequency) ||
    !Array.isArray(processors) || !processors.every(isProcessor) ||
    !(syndbg === undefined || isSynDbg(syndbg))
  ) throw new TypeError(`Cannot restore partition: not of format ${FORMAT}`);
  if (processors.length !== vcpus) {
    throw new TypeError(
      `Cannot restore partition: ${vcpus} virtual processors, not ${processors.length}`,
    );
  }
}
