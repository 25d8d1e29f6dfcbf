/** Whether fingers have to hit what is drawn: a narrow window, or a device without a mouse. app.css asks the same. */
import { useSyncExternalStore } from "react";

const TOUCH = "(max-width: 640px), (pointer: coarse)";

function subscribe(changed: () => void): () => void {
  const query = matchMedia(TOUCH);
  query.addEventListener("change", changed);
  return () => query.removeEventListener("change", changed);
}

export function useTouch(): boolean {
  return useSyncExternalStore(subscribe, () => matchMedia(TOUCH).matches);
}
