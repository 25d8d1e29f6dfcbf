/** Stage 8, decide: compare the options, choose one, edit it, keep the reason. */
import { startApp } from "@client/start";
import manifest from "./app.json";

void startApp({ app: manifest, screen: () => import("./screen"), signInAtOnce: () => false });
