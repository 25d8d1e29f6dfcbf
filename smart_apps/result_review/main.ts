/** Stage 7, review, and stage 8, decide: one AI report beside the images it was made from. */
import { startApp } from "@client/start";
import manifest from "./app.json";

void startApp({ app: manifest, screen: () => import("./screen"), signInAtOnce: () => false });
