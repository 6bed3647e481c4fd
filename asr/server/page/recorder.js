// Hands the samples of the microphone on in blocks of a tenth of a second, as 16-bit integers.
class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Int16Array(Math.round(sampleRate / 10));
    this.count = 0;
    this.port.onmessage = () => {
      this.port.postMessage(this.block.slice(0, this.count));
      this.port.postMessage(null);
      this.count = 0;
    };
  }

  process([channels]) {
    for (const sample of channels[0] ?? []) {
      this.block[this.count++] = Math.max(-32768, Math.min(32767, Math.round(sample * 32767)));
      if (this.count === this.block.length) {
        this.port.postMessage(this.block.slice());
        this.count = 0;
      }
    }
    return true;
  }
}
registerProcessor("recorder", Recorder);
