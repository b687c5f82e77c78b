// The package is made for another way of importing than that of the package that imports it.
import { Scrollbars } from "./node_modules/react-custom-scrollbars-2/lib/index.js";
export { Scrollbars };
export default Scrollbars;
